"""The tested combinations of gradient rule, network, layout and calling method.

Each gradient rule is tested with default choices. In addition, it is tested with some
randomly chosen networks and layouts, and some ways of calling it, such as under `vmap`.
The random seed is fixed.
"""

from functools import cache

import numpy as np
import pytest

from tests.matrix.cases import Layout, seed_of
from tests.matrix.networks import networks
from tests.matrix.programs import check, Program, RULES, WAYS
from tests.matrix.rules import ONLINE, THROUGH_TIME

FAMILIES = {"through_time": THROUGH_TIME, "online": ONLINE}
LAYOUTS = [
    Layout(()),
    Layout((2, 2)),
    Layout((3,), 1),
    Layout((), 1),
    Layout((0,)),
    Layout((2,), 9),
    Layout((3,), 5, "float32"),
    Layout((3,), 5, "bfloat16"),
    Layout((1, 3), 5, "float32"),
]
NUM_LAYOUTS, NUM_WAYS = 4, 3
# Rules that are tested with spiking neurons, in float64: with fewer digits, a spike may
# appear or disappear.
SPIKING = ("bptt", "truncated_2_3", "rtrl", "eprop", "layerwise_rtrl")
FAST = {  # only these belong to the fast tests
    Program("bptt_every", "leaky"),
    Program("bptt_two_phase", "lstm"),
    Program("truncated_2_3", "leaky"),
    Program("artbp_growing", "leaky"),
    Program("rtrl", "leaky"),
    Program("snap_1", "gru"),
    Program("rflo", "leaky"),
    Program("uoro", "leaky"),
}


def default(rule) -> Program:
    """Return the default combination for a gradient rule."""
    fits = RULES[rule].accepts(networks()["leaky"])
    return Program(rule, "leaky" if fits else "separate")


@cache
def programs(family) -> list[Program]:
    """Return the combinations to test for a family of rules, the fast tests first."""
    found = [program for program in FAST if program.rule in FAMILIES[family]]
    found.sort()
    for rule in FAMILIES[family]:
        row, numbers = RULES[rule], np.random.default_rng(seed_of(rule))
        fits = {name: each for name, each in networks().items() if row.accepts(each)}
        fitting = [name for name, each in fits.items() if not each.spiking]
        found.append(default(rule))
        layouts = [LAYOUTS[i] for i in numbers.permutation(len(LAYOUTS))[:NUM_LAYOUTS]]
        for layout in layouts:
            found.append(Program(rule, str(numbers.choice(fitting)), layout))
        simple = next(name for name in ("tanh", "separate") if name in fitting)
        ways = [
            way
            for way in WAYS
            if way != "jit" and (row.optional or not way.startswith("only"))
        ]
        for i in numbers.permutation(len(ways))[:NUM_WAYS]:
            found.append(Program(rule, simple, Layout((4,)), ways[i]))
        if rule == "layerwise_rtrl":
            found.append(Program(rule, "stack"))  # where it differs from RTRL
        if rule in SPIKING:
            found += [
                Program(rule, name) for name, each in fits.items() if each.spiking
            ]
    return list(dict.fromkeys(found))


def parameters(family):
    """Return pytest's parameter sets for a family of gradient rules."""
    return [
        pytest.param(
            program,
            id=program.name,
            marks=[] if program in FAST else [pytest.mark.slow],
        )
        for program in programs(family)
    ]


def assert_all_cells_hold(program):
    """Make all checks of a compiled rule; print the names of those that fail."""
    found = list(check(program))
    assert [name for name, _ in found] == program.cells()
    wrong = [f"{name}: {message}" for name, message in found if message is not None]
    assert not wrong, f"{len(wrong)} of {len(found)} cells fail:\n" + "\n".join(wrong)
