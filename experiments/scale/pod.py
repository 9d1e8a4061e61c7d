"""Study `pod`: a calculation of how fast 256 chips would train.

All chips train one network, or each trains its share of 10,000 networks. An update of
one network of N parameters, on p chips with b streams each and windows of T, takes:

    arithmetic   T · 8 N b / (efficiency · peak)         forward, again, and backward
    weights      T · (3 w + 8) N / memory bandwidth      read thrice, gradients added up
    loop         T · 3 · overhead                        of a time step, thrice
    sums         2 (p − 1)/p · 4 N / link bandwidth + hops · latency

    time = max(arithmetic, weights) + loop + sums

w is 2, the bytes of a weight in matrix products. Sums are an all-reduce on a torus of r
axes, once a window, in 2 r (p^(1/r) − 1) hops. With r = 1 the torus is a ring, which
sends as many bytes. Arithmetic overlaps with reading weights; nothing else overlaps.
Weights are read from memory in each time step, even if they would fit on the chip. Each
parameter counts as if it were in one matrix product.

A sweep of separate networks takes the same time without the sums. Each chip runs its
share in lanes of one vmap, and reads weights for each lane.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

from experiments import report
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, at_least
from experiments.harness.study import run_study, Study
from experiments.scale import _pod_report

WEIGHT_BYTES = 2  # bfloat16
SUM_BYTES = 4  # gradients are summed in float32


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """How much faster would many chips train, and where does scaling stop?"""

    QUICK = {"chips": 16, "units": (256,)}
    CHECKS = {
        "chips torus units streams window runs run_units run_batch": at_least(1),
        "peak memory_bandwidth link_bandwidth efficiency": above(0),
        "latency overhead": at_least(0),
    }

    chips: int = 256
    """The largest number of chips."""
    peak: float = 197e12
    """Peak FLOP/s of a chip in bfloat16. This and the next two are of TPU v5e,
    docs.cloud.google.com/tpu/docs/v5e."""
    memory_bandwidth: float = 819e9
    """Bytes a second, between a chip and its memory."""
    link_bandwidth: float = 200e9
    """Bytes a second that a chip sends: half of 400 GB/s, which counts both ways."""
    latency: float = 1e-6
    """Seconds for a hop. Assumed, not published."""
    overhead: float = 5e-6
    """Fixed seconds of a time step, for any size. Assumed, not published."""
    efficiency: float = 0.5
    """Share of the peak that matrix products reach. Assumed."""
    torus: int = 2
    """Axes of the torus of chips."""
    units: tuple[int, ...] = (256, 1024, 4096)
    """Sizes of the GRUs, each with as many inputs as units."""
    streams: int = 16_384
    """Streams of all chips together: the batch of an update."""
    window: int = 64
    """Time steps of an update."""
    runs: int = 10_000
    """Runs of the sweep."""
    run_units: int = 64
    """Size of the GRU of a run."""
    run_batch: int = 32
    """Batch of a run."""

    seeds: int = 1
    """1 only: nothing is drawn at random."""
    first_seed: int = 0
    """0 only: nothing is drawn at random."""

    def check(self) -> None:
        """Check that no other seeds are requested."""
        if (self.seeds, self.first_seed) != (1, 0):
            raise ValueError(
                "seeds must be 1 and first_seed 0, because nothing is random; got "
                f"{self.seeds} and {self.first_seed}."
            )


def main(config: Config) -> report.Result:
    """Calculate, show tables, and write them to a folder with a picture."""
    return run_study("pod", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    tables: dict[str, Callable[[Config, int], Row]] = {
        f"training-{units}": partial(training, units=units) for units in config.units
    }
    tables["sweep"] = sweep
    return [Job(name, 1, partial(_rows, config, of)) for name, of in tables.items()]


def _rows(config: Config, calculate, way: Way) -> list[Row]:
    """Return a row for each number of chips."""
    numbers = [4**k for k in range(20) if 4**k < config.chips] + [config.chips]
    return [calculate(config, chips) for chips in numbers]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _pod_report.show(rows, config, least_batch(config), least_streams(config))
    report.save_picture(folder, "pod", _pod_report.draw(rows, config))


def gru_parameters(units: int) -> int:
    """Return the number of parameters of a GRU that has as many inputs as units.

    It has two matrices and biases, as `cells.gru.init` makes them.
    """
    return 6 * units**2 + 4 * units


def sent_bytes(num_bytes: float, chips: int) -> float:
    """Return the bytes that each chip sends in an all-reduce of `num_bytes`."""
    return 2 * (chips - 1) / chips * num_bytes


def hops(chips: int, torus: int) -> float:
    """Return the number of sequential hops of an all-reduce."""
    return 2 * torus * (chips ** (1 / torus) - 1)


def time_steps(config: Config, parameters: int, batch: float, lanes: int) -> dict:
    """Return the seconds of a window's time steps, on one chip, part by part."""
    flops = 8 * parameters * batch * lanes
    moved = (3 * WEIGHT_BYTES + 2 * SUM_BYTES) * parameters * lanes
    arithmetic = flops / (config.efficiency * config.peak)
    return {
        "arithmetic": config.window * arithmetic,
        "weights": config.window * moved / config.memory_bandwidth,
        "loop": config.window * 3 * config.overhead,
    }


def training(config: Config, chips: int, *, units: int) -> Row:
    """Return the row of one network on a number of chips."""
    parameters = gru_parameters(units)
    parts = time_steps(config, parameters, config.streams / chips, 1)
    sent = sent_bytes(SUM_BYTES * parameters, chips)
    wait = hops(chips, config.torus) * config.latency
    parts["sums"] = sent / config.link_bandwidth + wait
    row = {"row": "training", "units": units, "parameters": parameters}
    row |= {"chips": chips, "streams": config.streams / chips, "sent_bytes": sent}
    row |= parts | {"seconds": _total(parts)}
    by_step = parts | {"sums": config.window * parts["sums"]}
    return row | {"seconds_by_step": _total(by_step)}


def sweep(config: Config, chips: int) -> Row:
    """Return the row of a sweep on a number of chips."""
    lanes = math.ceil(config.runs / chips)
    parameters = gru_parameters(config.run_units)
    parts = time_steps(config, parameters, config.run_batch, lanes) | {"sums": 0.0}
    row = {"row": "sweep", "units": config.run_units, "parameters": parameters}
    row |= {"chips": chips, "lanes": lanes, "sent_bytes": 0.0}
    return row | parts | {"seconds": _total(parts)}


def least_streams(config: Config) -> float:
    """Return the streams per chip at which arithmetic takes as long as sums.

    This is the limit for many chips, without latency. It does not depend on the number
    of parameters, which cancels.
    """
    speeds = config.efficiency * config.peak / config.link_bandwidth
    return 2 * SUM_BYTES / 8 * speeds / config.window


def least_batch(config: Config) -> float:
    """Return the streams per chip at which arithmetic takes as long as reading weights.

    The number of parameters cancels here, too.
    """
    speeds = config.efficiency * config.peak / config.memory_bandwidth
    return (3 * WEIGHT_BYTES + 2 * SUM_BYTES) / 8 * speeds


def _total(parts: dict[str, float]) -> float:
    return max(parts["arithmetic"], parts["weights"]) + parts["loop"] + parts["sums"]
