"""Every gradient rule on random programs, against plain Python loops.

The profile "fast" of hypothesis tries 100 programs, 10 of them in the fast tier. For
2,000 programs run

    python -m pytest tests/gradients/test_random_programs.py -m "slow or not slow" \\
        --hypothesis-profile=long

A test that fails prints its program. `build(program)` of tests/random_programs/build.py
makes the network of it, and `CHECKS[rule]` of checks.py compares a rule on it.
"""

import collections
import gc

import hypothesis
import jax
import pytest
from hypothesis import given, strategies as st

from tests.random_programs import oracle
from tests.random_programs.build import build
from tests.random_programs.checks import CHECKS
from tests.random_programs.compare import Refused, Unfit
from tests.random_programs.grammar import programs

FIRST, PART = 10, 20  # number of programs of the first test, and of the others
PARTS = range(1 + -(-(hypothesis.settings.default.max_examples - FIRST) // PART))
# The kinds of programs, with rules that the programs of this kind are made for. Most
# other programs are refused by these rules.
MADE_FOR = {
    "anything": list(CHECKS),
    "without_branches": ["rflo", "eprop", "snap"],
    "elementwise": ["diagonal_rtrl", "rflo"],
    "affine": ["linear"],
    "factorised": ["kf_rtrl"],
}


@st.composite
def cases(draw):
    """Draw a program, two or three rules, and whether XLA optimises them."""
    kind = draw(st.sampled_from(["anything", *MADE_FOR]))
    first = draw(st.sampled_from(MADE_FOR[kind]))
    any_rule = st.sampled_from(list(CHECKS))
    others = draw(st.lists(any_rule, min_size=1, max_size=2))
    optimised = draw(st.sampled_from([False] * 5 + [True]))
    return draw(programs(kind)), list(dict.fromkeys([first, *others])), optimised


def try_case(case, counts):
    """Check rules on a program; count what came of it."""
    program, rules, optimised = case
    problem = build(program)
    # A comparison that rounding errors decide has no derivative to agree on.
    hypothesis.assume(oracle.smallest_gap(problem) > 1e-9)
    counts["programs", "all"] += 1
    before = jax.config.read("jax_disable_most_optimizations")
    for rule in rules:
        jax.config.update("jax_disable_most_optimizations", before and not optimised)
        try:
            CHECKS[rule](problem)
            counts[rule, "agreed"] += 1
        except Refused:
            counts[rule, "refused"] += 1
        except Unfit as reason:
            counts[rule, str(reason)] += 1
        finally:
            jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def counts(request):
    """Count programs for each rule; print the table after the last test."""
    found = collections.Counter()
    yield found
    table = [f"{rule:20} {what:20} {found[rule, what]:6}" for rule, what in found]
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("", *sorted(table), sep="\n")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.fast_rows(1)
def test_rules_agree_with_loops(part, counts):
    test = given(cases())(lambda case: try_case(case, counts))
    size = hypothesis.settings(max_examples=PART if part else FIRST)
    hypothesis.seed(part)(size(test))()
    if part % 5 == 4:  # compiled programs take memory, and few are used again
        jax.clear_caches()
    gc.collect()
