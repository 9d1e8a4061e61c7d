"""Estimates by XLA of a compiled function's memory, operations and memory traffic.

XLA makes the estimates when it compiles the function; the function does not run. The
estimates hold for the given shapes and dtypes of arguments, and for the current
platform (CPU, GPU or TPU).
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from bpvariants._checks import check_function
from bpvariants._tables import aligned, short

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class MemoryReport(NamedTuple):
    """Result of :func:`memory_report`: bytes of memory that a compiled function needs.

    Attributes:
      arguments: bytes of the function's argument arrays.
      outputs: bytes of the arrays that the function returns.
      aliased: bytes of outputs that reuse the memory of donated arguments.
      temporaries: bytes of intermediate arrays, such as residuals of a backward pass.
      code: bytes of the machine code; 0 if XLA does not report its size.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """Bytes of memory in total; memory shared by aliased arrays counts once."""
        held = self.arguments + self.outputs + self.temporaries + self.code
        return held - self.aliased

    def table(self) -> str:
        """Return text with a line for each kind of memory, and a line for the total."""
        rows = [["", "bytes", ""]]
        for name, size in [
            *zip(self._fields, self, strict=True),
            ("total", self.total),
        ]:
            rows.append([name, str(size), _in_units(size)])
        return aligned(rows)


class CostReport(NamedTuple):
    """Result of :func:`cost_report`: operations of a compiled function; NaN if unknown.

    Attributes:
      flops: number of floating-point operations.
      bytes_accessed: bytes that all operations read and write, including temporary
        arrays.
      transcendentals: number of evaluations of functions such as exp, log and tanh.
      loops: number of iterations of each loop of the function; None for a loop whose
        number of iterations XLA does not know. `flops`, `bytes_accessed` and
        `transcendentals` count only one iteration of each loop.
    """

    flops: float
    bytes_accessed: float
    transcendentals: float
    loops: tuple[int | None, ...]

    def table(self) -> str:
        """Return text: a line for each kind of operation, and a line for the loops."""
        rows = [[name, short(value)] for name, value in self._asdict().items()
                if name != "loops"]  # fmt: skip
        lines = [aligned(rows)]
        if self.loops:
            steps = ", ".join("?" if n is None else str(n) for n in self.loops)
            lines.append(
                f"Only one step of each loop is counted; there are loops of {steps} "
                "steps."
            )
        return "\n".join(lines)


def memory_report(fn: Callable, *args: Any, **kwargs: Any) -> MemoryReport:
    """Report how much memory a function needs, without running it.

    Compiling the function takes as long as at its first call. If memory_report is
    called within `jit`, the function is compiled separately while tracing. The report
    is an estimate by XLA; memory of arrays that are not used in the function is not
    included.

    Args:
      fn: any function of arrays, jitted or not. If donate_argnums or static_argnums
        matter, give a function that is jitted with them.
      *args: arguments of fn, arrays or `jax.ShapeDtypeStruct`s.
      **kwargs: keyword arguments of fn, also arrays or `jax.ShapeDtypeStruct`s.

    Returns:
      A :class:`MemoryReport` in bytes; `table()` returns it as text.

    Raises:
      ValueError: if the platform does not report memory.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import diagnostics
      >>> x = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)  # needs no memory
      >>> report = diagnostics.memory_report(lambda x: jnp.sum(jnp.sin(x) @ x), x)
      >>> report.arguments, report.outputs, report.temporaries >= 4_000_000
      (4000000, 4, True)
    """
    analysis = _compile(fn, args, kwargs).memory_analysis()
    if analysis is None:
        raise ValueError(
            f"the platform {jax.default_backend()!r} does not report how much memory a "
            "program needs; use one that does, such as the CPU, by jax.default_device("
            "jax.devices('cpu')[0])."
        )
    size = lambda name: int(getattr(analysis, f"{name}_size_in_bytes"))
    names = ("argument", "output", "alias", "temp", "generated_code")
    return MemoryReport(*map(size, names))


def cost_report(fn: Callable, *args: Any, **kwargs: Any) -> CostReport:
    """Report how many operations a function performs, without running it.

    XLA counts the operations of only one iteration of each loop. For a scan over time,
    the report therefore counts the operations of about one time step. The number of
    iterations of each loop is in the field `loops`. The function is compiled,
    separately from any surrounding `jit`.

    Args:
      fn: any function of arrays, jitted or not.
      *args: arguments of fn, arrays or `jax.ShapeDtypeStruct`s.
      **kwargs: keyword arguments of fn, also arrays or `jax.ShapeDtypeStruct`s.

    Returns:
      A :class:`CostReport`; `table()` returns it as text.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import diagnostics
      >>> x = jax.ShapeDtypeStruct((100, 100), jnp.float32)
      >>> report = diagnostics.cost_report(jnp.matmul, x, x)
      >>> report.flops >= 2 * 100**3, report.loops
      (True, ())
    """
    compiled = _compile(fn, args, kwargs)
    analysis = compiled.cost_analysis() or {}
    if isinstance(analysis, list):  # old versions of JAX return one dict per device
        analysis = analysis[0] if analysis else {}
    number = lambda name: float(analysis.get(name, float("nan")))
    return CostReport(
        flops=number("flops"),
        bytes_accessed=number("bytes accessed"),
        transcendentals=number("transcendentals"),
        loops=_loops(compiled.as_text() or ""),
    )


def _compile(fn: Any, args: Any, kwargs: Any) -> Any:
    check_function("fn", fn, "of arrays")
    jitted = fn if hasattr(fn, "lower") else jax.jit(fn)
    return jitted.lower(*args, **kwargs).compile()


def _loops(text: str) -> tuple[int | None, ...]:
    """Return each loop's number of iterations in HLO text; None if it is unknown."""
    loops = [line for line in text.splitlines() if re.search(r"= .*\bwhile\(", line)]
    known = [re.search(r'known_trip_count"?:\{"n":"(\d+)"', line) for line in loops]
    return tuple(int(match.group(1)) if match else None for match in known)


def _in_units(size: int) -> str:
    value, unit = float(size), UNITS[0]
    for unit in UNITS:
        if value < 1024 or unit == UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
