"""Gradient rules on randomly drawn networks, compared with plain Python loops.

By default, the tests draw 100 networks, 5 of them in the fast tests. To test 2,000
networks, run

    python -m pytest tests/gradients/test_random_programs.py -m "slow or not slow" \\
        --hypothesis-profile=long

A failing test prints the description of its network. To repeat the check, call
`CHECKS[rule](build(description))`, with `build` and CHECKS from build.py and checks.py
in tests/random_programs.
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

FIRST, PART = 5, 19  # numbers of networks in the first test and in each other test
PARTS = range(1 + -(-(hypothesis.settings.default.max_examples - FIRST) // PART))
# Format: {kind of random network: gradient rules to test with it}. Most of these rules
# support only one kind of network.
MADE_FOR = {
    "anything": list(CHECKS),
    "without_branches": ["rflo", "eprop", "snap"],
    "elementwise": ["diagonal_rtrl", "rflo"],
    "affine": ["linear"],
    "factorised": ["kf_rtrl"],
}


@st.composite
def cases(draw):
    """Draw a network, one to three gradient rules, and whether XLA optimises."""
    kind = draw(st.sampled_from(["anything", *MADE_FOR]))
    first = draw(st.sampled_from(MADE_FOR[kind]))
    any_rule = st.sampled_from(list(CHECKS))
    others = draw(st.lists(any_rule, min_size=1, max_size=2))
    optimised = draw(st.sampled_from([False] * 5 + [True]))
    return draw(programs(kind)), list(dict.fromkeys([first, *others])), optimised


def try_case(case, counts):
    """Check gradient rules on a network, and count the outcomes."""
    program, rules, optimised = case
    problem = build(program)
    # If rounding errors decide a comparison, they also decide which derivative is
    # right, so skip the network.
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
    """Return counters for the results of each gradient rule; print them at the end."""
    found = collections.Counter()
    yield found
    table = [f"{rule:20} {what:20} {found[rule, what]:6}" for rule, what in found]
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("", *sorted(table), sep="\n")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.slow
def test_rules_agree_with_loops(part, counts):
    test = given(cases())(lambda case: try_case(case, counts))
    size = hypothesis.settings(max_examples=PART if part else FIRST)
    hypothesis.seed(part)(size(test))()
    if part % 5 == 4:  # free the memory of compiled functions
        jax.clear_caches()
    gc.collect()
