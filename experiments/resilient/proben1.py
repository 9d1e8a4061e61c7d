"""Rprop on Proben1 by Prechelt's protocol, compared with the tables of his report.

Table 3 of the report is about linear networks, which are trained here by each variant
of Rprop. Tables 8 and 10 are about Prechelt's pivot networks: in table 8 with all
shortcut connections, in table 10 without them. The runs of a table row train together.

For table 3, the settings are those that the report states. For tables 8 and 10, the
stated settings do not reproduce the results, but the settings in `PIVOT` do. The
settings in `PIVOT` were inferred: initial weights between −0.1 and 0.1, initial step
sizes from 0.05 to 0.2, and stopping at a generalisation loss above 2 (GL_2) instead of
5 (GL_5).

The report says that it uses the Rprop of 1993, which is Rprop⁺, but Rprop⁻ reproduces
the results of the report. With Rprop⁻, the test errors, numbers of epochs and
generalisation losses of tables 8 and 10 agree with the report within random variation.
The numbers of epochs of table 3 agree, too. With Rprop⁺, the differences are larger.
iRprop⁺ and iRprop⁻ also differ from the report in table 3. By default, iRprop⁺ and
iRprop⁻ are run only for table 3.
"""

import dataclasses
import json
import time
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from experiments import data, report
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import at_least, given, known
from experiments.harness.study import run_study, Study
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
class Config(Study):
    """Does Rprop reach the errors in tables 3, 8 and 10 of the Proben1 report?"""

    QUICK = {"only": ("cancer1",), "seeds": 10, "max_epochs": 300}
    CHECKS = {
        "seeds": at_least(2),
        "max_epochs": at_least(5),
        "tables": given,
        "only": known(PUBLISHED["table3"]),
    }

    tables: tuple[Table, ...] = ("3", "8", "10")
    """Tables of the report to reproduce."""
    only: tuple[str, ...] = ()
    """Problems, such as cancer1; by default all 30 that are in all three tables."""
    seeds: int = 60
    """Number of runs of each table row; in the report, 10 (table 3) or 60 (tables 8 and
    10)."""
    variants: tuple[Variant, ...] = ()
    """Variants of Rprop; by default, all four for table 3, and Rprop⁺ and Rprop⁻ for
    tables 8 and 10."""
    max_epochs: int = 3000
    """Largest number of epochs of a run."""


def main(config: Config) -> report.Result:
    """Train all networks; print our results, and the results in Prechelt's report."""
    check = lambda config: data.proben1(_problems(config)[0])
    return run_study("proben1", config, _jobs, _finish, check=check)


def _problems(config: Config) -> list[str]:
    return list(config.only or PUBLISHED["table3"])


def _jobs(config: Config) -> list[Job]:
    jobs = []
    for table in config.tables:
        default = VARIANTS if table == "3" else VARIANTS[:2]
        for variant in config.variants or default:
            for name in _problems(config):
                do = partial(_row, config, table, name, variant)
                title = f"table {table}: {name}, {variant}"
                jobs.append(Job(title, config.max_epochs, do))
    return jobs


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    for table in config.tables:
        mine = [row for row in rows if row["table"] == table]
        if mine:
            _proben1_report.show(table, mine)
            picture = _proben1_report.draw(table, mine)
            report.save_picture(folder, f"table{table}", picture)


def setup(
    table: str, problem: data.Proben1, variant: str, max_epochs: int = 3000
) -> tuple[Network, Settings]:
    """Return the network and the settings for one row of a table in the report."""
    inputs, outputs = problem.train.x.shape[1], problem.train.target.shape[1]
    own = {"variant": variant, "max_epochs": max_epochs}
    if table == "3":
        return Network((inputs, outputs), shortcuts=False), LINEAR._replace(**own)
    pivot = PUBLISHED["nets"][problem.name]
    sizes = (inputs, *pivot["hidden"], outputs)
    return Network(sizes, table == "8", pivot["output"]), PIVOT._replace(**own)


def _row(config: Config, table: str, name: str, variant: str, way: Way) -> Row:
    """Train all runs of a table row; return a row of results."""
    problem = data.proben1(name)
    network, settings = setup(table, problem, variant, config.max_epochs)
    keys = jax.random.split(jax.random.key(config.first_seed), config.seeds)
    start = time.perf_counter()
    outcome = train(problem, network, settings, keys, way.advance)
    seconds = time.perf_counter() - start
    published = PUBLISHED[f"table{table}"][name]
    row = {"table": table, "set": name, "variant": variant, "seconds": seconds}
    row |= {"weights": network.num_weights, "published": published}
    return row | {
        key: np.asarray(values, float).tolist()
        for key, values in outcome._asdict().items()
    }
