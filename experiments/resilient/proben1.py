"""Rprop on Proben1 with Prechelt's protocol, beside the tables of his report.

Table 3: linear networks, trained by each variant of Rprop. Tables 8 and 10: his pivot
networks, with all shortcuts and without. All runs of a row train together.

The report gives the settings of table 3. Those that it gives for tables 8 and 10 do not
reproduce them; what does is in `PIVOT` below, and was inferred: weights from ±0.1,
first steps from 0.05 to 0.2, and GL_2 instead of GL_5.

He names Rprop as of 1993, that is, Rprop⁺. But the figures are those of Rprop⁻: of
that, test errors, epochs and generalisation losses of tables 8 and 10 differ from his
as much as chance makes them, and so do the epochs of table 3; of Rprop⁺ they do not,
nor of the other two in table 3, which is all that they are trained on by default.
"""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments import data, report
from experiments.resilient import _proben1_report
from experiments.resilient._networks import Network
from experiments.resilient._stopping import Settings, train

VARIANTS = ("rprop_plus", "rprop_minus", "irprop_plus", "irprop_minus")
LINEAR = Settings("rprop_plus", weights=0.01, step_sizes=(0.005, 0.02), alpha=5.0)
PIVOT = Settings("rprop_plus", weights=0.1, step_sizes=(0.05, 0.2), alpha=2.0)
PUBLISHED = json.loads(
    Path(__file__).with_name("proben1_published.json").read_text("utf-8")
)

Table = Literal["3", "8", "10"]
Variant = Literal["rprop_plus", "rprop_minus", "irprop_plus", "irprop_minus"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Train on Proben1 as in tables 3, 8 and 10 of Prechelt's report."""

    tables: tuple[Table, ...] = ("3", "8", "10")
    """Tables of the report to reproduce."""
    only: tuple[str, ...] = ()
    """Problems, such as cancer1; by default all 30 that the tables have in common."""
    runs: int = 60
    """Runs of each row, which train together; the report has 10 in table 3, else 60."""
    variants: tuple[Variant, ...] = ()
    """Of Rprop; by default all four in table 3, Rprop+ and Rprop- in the others."""
    max_epochs: int = 3000
    """After how many epochs a run is stopped anyway."""
    out: Path | None = None
    """Folder to write to; by default runs/proben1-<time>."""

    def __post_init__(self):
        """Check the options."""
        if self.runs < 2:
            raise ValueError(f"runs must be at least 2, got {self.runs}.")
        if self.max_epochs < 5:
            raise ValueError(f"max_epochs must be at least 5, got {self.max_epochs}.")
        for name in self.only:
            if name not in PUBLISHED["table3"]:
                known = ", ".join(PUBLISHED["table3"])
                raise ValueError(f"only has {name!r}; there are: {known}.")


def main(config: Config) -> report.Result:
    """Train all rows, show them beside the report, and write them to a folder."""
    folder = report.make_folder("proben1", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    jobs = list(_jobs(config))
    try:
        with report.Progress(len(jobs)) as progress:
            for table, name, variant in jobs:
                title = f"table {table}: {name}, {variant}"
                progress.begin(title, config.max_epochs)
                rows.append(_row(config, table, name, variant, progress.advance))
                report.append_row(folder, rows[-1])
    except KeyboardInterrupt:
        interrupted = True
    for table in config.tables:
        mine = [row for row in rows if row["table"] == table]
        if mine:
            _proben1_report.show(table, mine)
            picture = _proben1_report.draw(table, mine)
            report.save_picture(folder, f"table{table}", picture)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def setup(
    table: str, problem: data.Proben1, variant: str, max_epochs: int = 3000
) -> tuple[Network, Settings]:
    """Return the network and the settings of a row."""
    inputs, outputs = problem.train.x.shape[1], problem.train.target.shape[1]
    own = {"variant": variant, "max_epochs": max_epochs}
    if table == "3":
        return Network((inputs, outputs), shortcuts=False), LINEAR._replace(**own)
    pivot = PUBLISHED["nets"][problem.name]
    sizes = (inputs, *pivot["hidden"], outputs)
    return Network(sizes, table == "8", pivot["output"]), PIVOT._replace(**own)


def _jobs(config: Config) -> Iterator[tuple[str, str, str]]:
    for table in config.tables:
        default = VARIANTS if table == "3" else VARIANTS[:2]
        for variant in config.variants or default:
            for name in config.only or PUBLISHED["table3"]:
                yield table, name, variant


def _row(config, table, name, variant, advance) -> dict[str, Any]:
    problem = data.proben1(name)
    network, settings = setup(table, problem, variant, config.max_epochs)
    keys = jax.random.split(jax.random.key(0), config.runs)
    start = time.perf_counter()
    outcome = train(problem, network, settings, keys, advance)
    seconds = time.perf_counter() - start
    published = PUBLISHED[f"table{table}"][name]
    row = {"table": table, "set": name, "variant": variant, "seconds": seconds}
    row |= {"weights": network.num_weights, "published": published}
    return row | {
        key: np.asarray(values, float).tolist()
        for key, values in outcome._asdict().items()
    }
