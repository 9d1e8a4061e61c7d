"""What a compiled program needs, as XLA tells: memory, operations, bytes moved.

Estimates of the compiler, before anything is run. They are of the whole program, with
arguments of these shapes and dtypes, on the platform that is in use.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from bpvariants._tables import aligned, short

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class MemoryReport(NamedTuple):
    """Bytes of memory, from :func:`memory_report`.

    Attributes:
      arguments: of the arrays that are given.
      outputs: of those that are returned.
      aliased: of outputs that take the place of arguments, which are donated.
      temporaries: of what is kept on the way, such as a backward pass needs.
      code: of the program itself; 0 where XLA does not tell.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """Bytes of all, those that are aliased counted once."""
        held = self.arguments + self.outputs + self.temporaries + self.code
        return held - self.aliased

    def table(self) -> str:
        """Return a line for each kind of memory, and their total."""
        rows = [["", "bytes", ""]]
        for name, size in [
            *zip(self._fields, self, strict=True),
            ("total", self.total),
        ]:
            rows.append([name, str(size), _in_units(size)])
        return aligned(rows)


class CostReport(NamedTuple):
    """Work of a program, from :func:`cost_report`; NaN where XLA does not tell.

    Attributes:
      flops: operations on floating numbers.
      bytes_accessed: bytes read and written by all operations, those on temporaries
        included.
      transcendentals: how many of exp, log, tanh and the like.
      loops: how many steps each loop has, None for those that XLA does not know. The
        numbers above count one step of each.
    """

    flops: float
    bytes_accessed: float
    transcendentals: float
    loops: tuple[int | None, ...]

    def table(self) -> str:
        """Return a line for each kind of work, and say which loops there are."""
        rows = [[name, short(value)] for name, value in self._asdict().items()
                if name != "loops"]  # fmt: skip
        lines = [aligned(rows)]
        if self.loops:
            steps = ", ".join("?" if n is None else str(n) for n in self.loops)
            lines.append(
                f"One step alone is counted of each loop; loops of {steps} steps."
            )
        return "\n".join(lines)


def memory_report(fn: Callable, *args: Any, **kwargs: Any) -> MemoryReport:
    """Tell how much memory a function needs, without running it.

    Compiles the function, which takes as long as its first call does. Within `jit` the
    report is made while tracing, of the function as a program by itself. An estimate by
    XLA: what other programs hold at the time is not in it.

    Args:
      fn: any function of arrays, jitted or not. Jit it with donate_argnums, or
        static_argnums, to have these taken into account.
      *args: its arguments, arrays or `jax.ShapeDtypeStruct`.
      **kwargs: its keywords, likewise.

    Returns:
      A :class:`MemoryReport` in bytes, whose `table()` is text.

    Raises:
      ValueError: if the platform does not tell.

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
            f"the platform {jax.default_backend()!r} does not tell how much memory a "
            "program needs; use one that does, such as jax.default_device(jax.devices("
            "'cpu')[0])."
        )
    size = lambda name: int(getattr(analysis, f"{name}_size_in_bytes"))
    names = ("argument", "output", "alias", "temp", "generated_code")
    return MemoryReport(*map(size, names))


def cost_report(fn: Callable, *args: Any, **kwargs: Any) -> CostReport:
    """Tell how much work a function is, without running it.

    XLA counts one step of a loop, whatever its length, so that the numbers of a scan
    over time are about those of one time step: see `loops` in the report. Compiles the
    function, within `jit` while tracing.

    Args:
      fn: any function of arrays, jitted or not.
      *args: its arguments, arrays or `jax.ShapeDtypeStruct`.
      **kwargs: its keywords, likewise.

    Returns:
      A :class:`CostReport`, whose `table()` is text.

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
    if isinstance(analysis, list):  # of older versions of JAX, one a device
        analysis = analysis[0] if analysis else {}
    number = lambda name: float(analysis.get(name, float("nan")))
    return CostReport(
        flops=number("flops"),
        bytes_accessed=number("bytes accessed"),
        transcendentals=number("transcendentals"),
        loops=_loops(compiled.as_text() or ""),
    )


def _compile(fn: Any, args: Any, kwargs: Any) -> Any:
    jitted = fn if hasattr(fn, "lower") else jax.jit(fn)
    return jitted.lower(*args, **kwargs).compile()


def _loops(text: str) -> tuple[int | None, ...]:
    """Return the numbers of steps of all loops in a program's text."""
    loops = [line for line in text.splitlines() if re.search(r"= .*\bwhile\(", line)]
    known = [re.search(r'known_trip_count"?:\{"n":"(\d+)"', line) for line in loops]
    return tuple(int(match.group(1)) if match else None for match in known)


def _in_units(size: int) -> str:
    """Return bytes in units of 1024."""
    value, unit = float(size), UNITS[0]
    for unit in UNITS:
        if value < 1024 or unit == UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
