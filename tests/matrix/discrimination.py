"""Checks that the comparison with reference gradients rejects wrong gradient rules.

Each reference gradient is compared with the gradients of all gradient rules that
compute a different approximation. Each of these comparisons must fail.
"""

import pytest

from tests.matrix import selection
from tests.matrix.programs import (
    assert_near,
    check,
    DEFAULT_RESULTS,
    RULES,
    TOLERANCE,
    wanted,
)

NETWORK, CONDITIONS = "leaky", ("plain", "weights_random", "zero_carry")
# Format: {gradient rule: other rules with the same gradient for the network "leaky"}.
# In this network, SnAp-2 stores all entries of the influence matrix ∂h/∂θ, so it equals
# RTRL. E-prop stores no traces, because all of the carry is visible to other units.
DEFINITIONS = {
    "bptt": {
        "bptt_step",
        "bptt_every",
        "bptt_slots",
        "bptt_budget",
        "bptt_two_phase",
        "truncated_2_9",
        "artbp_no_cuts",
        "unroll",
        "parallel_newton",
        "rtrl",
        "snap_2",
        "layerwise_rtrl",
        "sketched_rtrl_full",
    },
    "truncated_1_1": {"eprop"},
    "truncated_1_3": set(),
    "truncated_2_2": set(),
    "truncated_2_3": set(),
    "truncated_3_4": set(),
    "snap_1": set(),
    "rflo": set(),
    "rflo_feedback": set(),
    "eprop_feedback": set(),
}


def others(definition, family) -> list[str]:
    """Return the rules in a family whose gradient differs from a reference gradient."""
    same = DEFINITIONS[definition] | {definition}
    network = selection.networks()[NETWORK]
    return [
        rule
        for rule in selection.FAMILIES[family]
        if rule not in same and RULES[rule].accepts(network)
    ]


def cells(definition, family) -> list[str]:
    """Return the names of all comparisons that `assert_others_fail` makes."""
    return [
        f"{definition}/not/{rule}/{condition}"
        for rule in others(definition, family)
        for condition in CONDITIONS
    ]


def assert_others_fail(definition, family):
    names, accepted = iter(cells(definition, family)), []
    grads_of = RULES[definition].wants(NETWORK)
    for rule in others(definition, family):
        program = selection.default(rule)
        if program not in DEFAULT_RESULTS:
            list(check(program))
        for condition in CONDITIONS:
            name = next(names)
            want = grads_of(wanted(NETWORK, program.layout, condition))
            got = DEFAULT_RESULTS[program][condition].grads
            try:
                assert_near("grads", got, want, 1e6 * TOLERANCE["float64"])
            except AssertionError:
                continue
            accepted.append(name)
    assert not accepted, accepted
    # The comparison must accept the gradient rule that computes the reference gradient.
    if definition in selection.FAMILIES[family]:
        program = selection.default(definition)
        found = DEFAULT_RESULTS.get(program) or (
            list(check(program)) and DEFAULT_RESULTS[program]
        )
        for condition in CONDITIONS:
            want = grads_of(wanted(NETWORK, program.layout, condition))
            assert_near("grads", found[condition].grads, want, TOLERANCE["float64"])
    with pytest.raises(AssertionError):
        assert_near("grads", want + 1e-6, want, TOLERANCE["float64"])
