"""Study `pod`: how fast 256 chips would train; times are calculated, not measured.

There are two cases: all chips train one network, or each chip trains its share of
10,000 networks. A network has N parameters, and there are p chips. Each chip has b
streams of data, and a window has T time steps. The time of an update has four parts:

    arithmetic   T · 8 N b / (efficiency · peak)         forward, recompute, backward
    weights      T · (3 w + 8) N / memory bandwidth      read 3 times; gradients added
    loop         T · 3 · overhead                        forward, recompute, backward
    sums         2 (p − 1)/p · 4 N / link bandwidth + hops · latency

    time = max(arithmetic, weights) + loop + sums

w = 2 is the number of bytes of a weight in matrix products. Gradients are summed over
the chips once per window, by an all-reduce on a torus of r axes, in 2 r (p^(1/r) − 1)
hops. For r = 1, the torus is a ring. The number of bytes that each chip sends does not
depend on r. Arithmetic overlaps with the reading of weights; no other parts overlap.
The calculation assumes that weights are read from memory in each time step, even if
they would fit on the chip. The calculation also assumes that each parameter is used in
one matrix product.

In a sweep of separate networks, an update has the same parts, except that no gradients
are summed over chips. Each chip trains its share of the networks under one vmap, and
reads the weights of all these networks.
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

WEIGHT_BYTES = 2  # weights are bfloat16 in matrix products
SUM_BYTES = 4  # gradients are summed in float32


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """How much faster would many chips train, and what limits scaling?"""

    QUICK = {"chips": 16, "units": (256,)}
    CHECKS = {
        "chips torus units streams window runs run_units run_batch": at_least(1),
        "peak memory_bandwidth link_bandwidth efficiency": above(0),
        "latency overhead": at_least(0),
    }

    chips: int = 256
    """Largest number of chips."""
    peak: float = 197e12
    """Peak FLOP/s of a chip in bfloat16; the default is a TPU v5e's:
    docs.cloud.google.com/tpu/docs/v5e."""
    memory_bandwidth: float = 819e9
    """Bytes per second between a chip and its memory; the default is a TPU v5e's."""
    link_bandwidth: float = 200e9
    """Bytes per second that a chip can send. A TPU v5e has 400 GB/s, both directions
    together."""
    latency: float = 1e-6
    """Seconds that a hop between chips takes. The default is assumed, not published."""
    overhead: float = 5e-6
    """Fixed cost of a time step in seconds, for networks of any size. The default is
    assumed, not published."""
    efficiency: float = 0.5
    """FLOP/s of matrix products relative to the peak. The default is assumed, not
    published."""
    torus: int = 2
    """Number of axes of the torus that connects the chips."""
    units: tuple[int, ...] = (256, 1024, 4096)
    """Numbers of units of the GRUs; the number of inputs is the same."""
    streams: int = 16_384
    """Total number of streams of all chips, which is the batch size of an update."""
    window: int = 64
    """Number of time steps in the window of an update."""
    runs: int = 10_000
    """Number of networks in the sweep."""
    run_units: int = 64
    """Number of units of each GRU in the sweep."""
    run_batch: int = 32
    """Batch size of each network in the sweep."""

    seeds: int = 1
    """Must be 1, because nothing is drawn at random."""
    first_seed: int = 0
    """Must be 0, because nothing is drawn at random."""

    def check(self) -> None:
        """Check that `seeds` and `first_seed` have their default values."""
        if (self.seeds, self.first_seed) != (1, 0):
            raise ValueError(
                "seeds must be 1 and first_seed 0, because nothing is random; got "
                f"{self.seeds} and {self.first_seed}."
            )


def main(config: Config) -> report.Result:
    """Calculate times of an update; print tables; write results and a picture."""
    return run_study("pod", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    tables: dict[str, Callable[[Config, int], Row]] = {
        f"training-{units}": partial(training, units=units) for units in config.units
    }
    tables["sweep"] = sweep
    return [Job(name, 1, partial(_rows, config, of)) for name, of in tables.items()]


def _rows(config: Config, calculate, way: Way) -> list[Row]:
    """Return one row of results for each number of chips: 1, 4, 16 … `config.chips`."""
    numbers = [4**k for k in range(20) if 4**k < config.chips] + [config.chips]
    return [calculate(config, chips) for chips in numbers]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _pod_report.show(rows, config, least_batch(config), least_streams(config))
    report.save_picture(folder, "pod", _pod_report.draw(rows, config))


def gru_parameters(units: int) -> int:
    """Return the number of parameters of a GRU with `units` inputs and units.

    The parameters are two matrices and biases, as in `cells.gru.init`.
    """
    return 6 * units**2 + 4 * units


def sent_bytes(num_bytes: float, chips: int) -> float:
    """Return the number of bytes that each chip sends in an all-reduce of an array."""
    return 2 * (chips - 1) / chips * num_bytes


def hops(chips: int, torus: int) -> float:
    """Return the number of hops, one after another, of an all-reduce on the torus."""
    return 2 * torus * (chips ** (1 / torus) - 1)


def time_steps(config: Config, parameters: int, batch: float, lanes: int) -> dict:
    """Return the seconds that one chip needs for all time steps of a window.

    The result has the seconds for arithmetic, for reading weights from memory, and for
    the loop over time steps.
    """
    flops = 8 * parameters * batch * lanes
    moved = (3 * WEIGHT_BYTES + 2 * SUM_BYTES) * parameters * lanes
    arithmetic = flops / (config.efficiency * config.peak)
    return {
        "arithmetic": config.window * arithmetic,
        "weights": config.window * moved / config.memory_bandwidth,
        "loop": config.window * 3 * config.overhead,
    }


def training(config: Config, chips: int, *, units: int) -> Row:
    """Return the row of results for training one network on a number of chips."""
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
    """Return the row of results for a sweep on a number of chips."""
    lanes = math.ceil(config.runs / chips)
    parameters = gru_parameters(config.run_units)
    parts = time_steps(config, parameters, config.run_batch, lanes) | {"sums": 0.0}
    row = {"row": "sweep", "units": config.run_units, "parameters": parameters}
    row |= {"chips": chips, "lanes": lanes, "sent_bytes": 0.0}
    return row | parts | {"seconds": _total(parts)}


def least_streams(config: Config) -> float:
    """Return the streams per chip at which arithmetic takes as long as an all-reduce.

    The all-reduce sums gradients over many chips, without latency. The number of
    parameters cancels, so the result does not depend on it.
    """
    speeds = config.efficiency * config.peak / config.link_bandwidth
    return 2 * SUM_BYTES / 8 * speeds / config.window


def least_batch(config: Config) -> float:
    """Return the streams per chip at which arithmetic takes as long as reading weights.

    The number of parameters cancels, so the result does not depend on it.
    """
    speeds = config.efficiency * config.peak / config.memory_bandwidth
    return (3 * WEIGHT_BYTES + 2 * SUM_BYTES) / 8 * speeds


def _total(parts: dict[str, float]) -> float:
    return max(parts["arithmetic"], parts["weights"]) + parts["loop"] + parts["sums"]
