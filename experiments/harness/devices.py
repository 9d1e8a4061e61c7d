"""Devices, processes and precision of a study.

JAX reads some settings only once, when it first looks for devices. The function
:func:`start` sets these settings after the options are read, and before the study runs.
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, ExitStack
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import jax
import numpy as np

from experiments.harness.errors import DataError
from experiments.harness.options import check_at_least_one, known
from experiments.harness.placement import local_devices
from experiments.harness.precision import double_precision, PRODUCTS, products_in

DTYPES = ("float32", "bfloat16", "float64")
FLOAT64 = (
    "precision is that of matrix products; for a network that computes in float64, "
    "choose --dtype float64."
)
PRODUCTS_ONLY = (
    "Note: --precision bfloat16 rounds only the factors of matrix products, and CPUs "
    "ignore it; the network computes in {}. For a network that computes in bfloat16, "
    "choose --dtype bfloat16."
)
LOST = 75  # exit code if a process is lost: EX_TEMPFAIL of sysexits.h, "try again"


@dataclass(frozen=True)
class Machine:
    """Options of a study for several devices or processes, and for precision."""

    devices: int | None = None
    """Number of devices of each process: accelerators or, if there are none, parts of
    the CPU. By default, all accelerators, or the CPU as one device."""
    model_devices: int = 1
    """Number of devices that parameters are sharded over; it must divide the total
    number of devices. Parameters are sharded over the axis "model" of the device
    mesh, and batches over the axis "data"."""
    distributed: bool = False
    """Run as one of several processes. On Slurm, TPU pods, GKE and MPI, JAX finds the
    other processes itself; elsewhere set --coordinator, --processes, --process-id."""
    coordinator: str | None = None
    """Address of process 0, host:port, if JAX does not find it."""
    processes: int | None = None
    """Number of processes, if JAX does not find this number."""
    process_id: int | None = None
    """Index of this process, counted from 0, if JAX does not find the index."""
    heartbeat: int = 100
    """Number of seconds without a heartbeat after which a process counts as dead."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Type of the numbers in which the network computes. With bfloat16, parameters and
    sums over time are kept in float32."""
    precision: Literal["default", "float32", "tensorfloat32", "bfloat16"] = "default"
    """Precision to which the factors of float32 matrix products may be rounded. The
    default of JAX is float32 on CPUs, TF32 on recent GPUs, and bfloat16 on TPUs. CPUs
    always compute in float32. For a network that computes in bfloat16, choose
    --dtype bfloat16."""

    def __post_init__(self):
        """Check each option, and check that no two options contradict each other."""
        check_at_least_one(self, "devices", "model_devices", "processes", "heartbeat")
        known(DTYPES)("dtype", self.dtype)
        if self.precision == "float64":
            raise ValueError(FLOAT64)
        known(PRODUCTS)("precision", self.precision)
        explicit = self.coordinator, self.processes, self.process_id
        if not self.distributed and explicit != (None, None, None):
            raise ValueError(
                "coordinator, processes and process_id need --distributed, which was "
                "not given."
            )
        if self.distributed and None in explicit and explicit != (None, None, None):
            raise ValueError(
                "coordinator, processes and process_id must be given together, or all "
                f"left to JAX's own detection; got {explicit}."
            )
        if self.processes and not 0 <= (self.process_id or 0) < self.processes:
            raise ValueError(
                f"process_id must be 0 to {self.processes - 1}, for processes="
                f"{self.processes}, got {self.process_id}."
            )

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Use the options `dtype` and `precision` within a `with` block.

        If matrix products are rounded to bfloat16, and the network does not compute in
        bfloat16, process 0 prints a note to standard error.
        """
        if self.precision == "bfloat16" != self.dtype and not self.process_id:
            print(PRODUCTS_ONLY.format(self.dtype), file=sys.stderr)
        with ExitStack() as stack:
            if self.dtype == "float64":
                stack.enter_context(double_precision())
            stack.enter_context(products_in(self.precision))
            yield

    def mesh(self) -> jax.sharding.Mesh:
        """Return a mesh of the devices in the options, with axes "data" and "model"."""
        number = len(local_devices(self.devices or jax.local_device_count()))
        groups: dict[int, list] = {}
        for device in jax.devices():
            groups.setdefault(device.process_index, []).append(device)
        chosen = [device for of_one in groups.values() for device in of_one[:number]]
        if len(chosen) % self.model_devices:
            raise DataError(
                f"--model-devices {self.model_devices} does not divide the "
                f"{len(chosen)} devices there are in all."
            )
        grid = np.array(chosen).reshape(-1, self.model_devices)
        return jax.sharding.Mesh(grid, ("data", "model"))


def start(machine: Any) -> None:
    """Set the settings that JAX reads when it first looks for devices.

    If the study has several processes, also connect this process to the other
    processes.

    Args:
      machine: a `Machine`, or the options of a study that runs in one process; it has
        an attribute `devices`.
    """
    if machine.devices:
        jax.config.update("jax_num_cpu_devices", machine.devices)
    if not getattr(machine, "distributed", False):
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        machine.coordinator,
        machine.processes,
        machine.process_id,
        heartbeat_timeout_seconds=machine.heartbeat,
    )


def run(study: Callable[[Any], Any], config: Any) -> Any:
    """Run a study; if it has several processes and fails, exit this process at once.

    If a study fails in one of several processes, an ordinary exit of this process would
    hang: JAX would wait for the other processes, and they would wait for results of
    this process. If this process is killed, a watcher process prints a message.
    """
    if not config.machine.distributed:
        return study(config)
    watcher = _watch()
    try:
        result = study(config)
        code, why = (130, "interrupted") if result.interrupted else (0, "")
    except jax.errors.JaxRuntimeError as error:
        _leave(LOST, f"a computation with the other processes failed: {error}")
    except KeyboardInterrupt:
        code, why = 130, "interrupted"
    except DataError as error:
        code, why = 2, str(error)
    except Exception:
        code, why = 1, traceback.format_exc()
    watcher.communicate(b".")
    if code:
        _leave(code, why)
    return result  # pyright: ignore[reportPossiblyUnboundVariable]


def _leave(code: int, why: str) -> NoReturn:
    sys.stdout.flush()
    print(f"{_who()}: {why}", file=sys.stderr, flush=True)
    os._exit(code)


def _who() -> str:
    return f"process {jax.process_index()} of {jax.process_count()}"


# The watcher waits for a byte, which `run` sends at its end through a pipe. If the pipe
# closes without a byte, the process was killed, and the watcher prints a message.
WATCHER = """
import os, sys
if not os.read(0, 1):
    os.write(2, sys.argv[1].encode())
"""


def _watch() -> subprocess.Popen:
    """Start a small process that prints a message if this process is killed.

    When a process of the study dies, the other processes wait for it in collective
    operations, until JAX aborts them. An aborted process runs no more Python code, so
    it cannot print a message itself. The watcher prints the message when the pipe from
    the process to the watcher closes.
    """
    message = (
        f"\n{_who()} ended before its work was done: it was killed, or JAX ended it "
        "because another process died or could not be reached. The last checkpoint is "
        "complete: start all processes again with --resume to continue from it.\n"
    )
    command = [sys.executable, "-I", "-S", "-c", WATCHER, message]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, bufsize=0, start_new_session=True
    )
