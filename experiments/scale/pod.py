"""What 256 chips would do, calculated: one network on all of them, and 10,000 apart.

One update of a network of N parameters, on p chips with b streams each, windows of T:

    arithmetic   T · 8 N b / (efficiency · peak)         forward, again, and backward
    weights      T · (3 w + 8) N / memory bandwidth      read thrice, gradients added up
    loop         T · 3 · overhead                        of a time step, thrice
    sums         2 (p − 1)/p · 4 N / link bandwidth + hops · latency

    time = max(arithmetic, weights) + loop + sums

w is the bytes of a weight in products, 2. Sums are an all-reduce on a torus of r axes,
once a window, in 2 r (p^(1/r) − 1) hops; with r = 1 that is a ring, of the same bytes.
Nothing overlaps; weights are read from memory in each time step, also those that would
fit on the chip; and all parameters count as if each were in one product.

A sweep is the same with no sums: each chip has its share of the runs, in lanes of one
vmap. Weights are then read for each lane.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

from experiments import report
from experiments.harness.options import check_at_least_one
from experiments.scale import _pod_report

WEIGHT_BYTES = 2  # bfloat16
SUM_BYTES = 4  # gradients are summed in float32


@dataclasses.dataclass(frozen=True)
class Config:
    """Calculate what many chips do, from what is published of them and assumed."""

    chips: int = 256
    """Up to how many."""
    peak: float = 197e12
    """FLOP/s of a chip in bfloat16. This and the two below: TPU v5e,
    docs.cloud.google.com/tpu/docs/v5e."""
    memory_bandwidth: float = 819e9
    """Bytes a second, of a chip and its memory."""
    link_bandwidth: float = 200e9
    """Bytes a second that a chip sends: half of 400 GB/s, which is for both ways."""
    latency: float = 1e-6
    """Seconds for a hop. Assumed, not published."""
    overhead: float = 5e-6
    """Seconds that a time step takes however small it is. Assumed, not published."""
    efficiency: float = 0.5
    """Part of the peak that products reach. Assumed."""
    torus: int = 2
    """Axes of the torus of chips."""
    units: tuple[int, ...] = (256, 1024, 4096)
    """Of the GRUs, each with as many inputs."""
    streams: int = 16_384
    """Of all chips together: the batch of an update."""
    window: int = 64
    """Time steps of an update."""
    runs: int = 10_000
    """Of the sweep."""
    run_units: int = 64
    """Of the GRU of a run."""
    run_batch: int = 32
    """Of a run."""
    out: Path | None = None
    """Folder to write to; by default runs/pod-<time>."""

    def __post_init__(self):
        """Check the options."""
        check_at_least_one(self, "chips", "torus", "streams", "window", "runs")
        check_at_least_one(self, "run_units", "run_batch")
        speeds = ("peak", "memory_bandwidth", "link_bandwidth", "efficiency")
        for name in (*speeds, "latency", "overhead"):
            value = getattr(self, name)
            if not (value > 0 or (value == 0 and name not in speeds)):
                raise ValueError(f"{name} must be positive, got {value}.")


def main(config: Config) -> report.Result:
    """Calculate, show tables, and write them to a folder with a picture."""
    start = time.perf_counter()
    folder = report.make_folder("pod", config.out)
    report.write_config(folder, config)
    numbers = [4**k for k in range(20) if 4**k < config.chips] + [config.chips]
    rows = [
        training(config, units, chips) for units in config.units for chips in numbers
    ]
    rows += [sweep(config, chips) for chips in numbers]
    for row in rows:
        report.append_row(folder, row)
    _pod_report.show(rows, config, least_batch(config), least_streams(config))
    report.save_picture(folder, "pod", _pod_report.draw(rows, config))
    report.say_where(folder, time.perf_counter() - start, False)
    return report.Result(rows, folder, False)


def gru_parameters(units: int) -> int:
    """Return how many a GRU has with as many inputs as units: two matrices and biases.

    As `cells.gru.init` makes them.
    """
    return 6 * units**2 + 4 * units


def sent_bytes(num_bytes: float, chips: int) -> float:
    """Return the bytes that each chip sends when so many are summed over all chips."""
    return 2 * (chips - 1) / chips * num_bytes


def hops(chips: int, torus: int) -> float:
    """Return how many steps such a sum takes, one after another."""
    return 2 * torus * (chips ** (1 / torus) - 1)


def time_steps(config: Config, parameters: int, batch: float, lanes: int) -> dict:
    """Return the seconds of a window's time steps, on one chip, by what takes them."""
    flops = 8 * parameters * batch * lanes
    moved = (3 * WEIGHT_BYTES + 2 * SUM_BYTES) * parameters * lanes
    arithmetic = flops / (config.efficiency * config.peak)
    return {
        "arithmetic": config.window * arithmetic,
        "weights": config.window * moved / config.memory_bandwidth,
        "loop": config.window * 3 * config.overhead,
    }


def training(config: Config, units: int, chips: int) -> dict[str, Any]:
    """Return the row of one network on so many chips."""
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


def sweep(config: Config, chips: int) -> dict[str, Any]:
    """Return the row of a sweep on so many chips."""
    lanes = math.ceil(config.runs / chips)
    parameters = gru_parameters(config.run_units)
    parts = time_steps(config, parameters, config.run_batch, lanes) | {"sums": 0.0}
    row = {"row": "sweep", "units": config.run_units, "parameters": parameters}
    row |= {"chips": chips, "lanes": lanes, "sent_bytes": 0.0}
    return row | parts | {"seconds": _total(parts)}


def least_streams(config: Config) -> float:
    """Return the streams a chip at which arithmetic takes as long as sums do.

    Of many chips, by bytes alone. The number of parameters is on both sides.
    """
    speeds = config.efficiency * config.peak / config.link_bandwidth
    return 2 * SUM_BYTES / 8 * speeds / config.window


def least_batch(config: Config) -> float:
    """Return the streams a chip at which arithmetic takes as long as reading weights.

    Here too the number of parameters is on both sides.
    """
    speeds = config.efficiency * config.peak / config.memory_bandwidth
    return (3 * WEIGHT_BYTES + 2 * SUM_BYTES) / 8 * speeds


def _total(parts: dict[str, float]) -> float:
    return max(parts["arithmetic"], parts["weights"]) + parts["loop"] + parts["sums"]
