"""Which rules of the table compute which gradient, and checks that others fail.

A comparison with an oracle shows little if it would also accept another rule. So each
oracle is compared with the gradients of all rules that compute something else, and the
comparison must fail for each of them.
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
# Definitions of gradients of the network "leaky", and all rules that compute them.
# Order 2 is the whole influence in a dense cell. A carry that is all visible leaves
# e-prop without traces, as the docstring of eprop says.
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
    """Return the rules of a family that do not compute a definition's gradient."""
    same = DEFINITIONS[definition] | {definition}
    network = selection.networks()[NETWORK]
    return [
        rule
        for rule in selection.FAMILIES[family]
        if rule not in same and RULES[rule].accepts(network)
    ]


def cells(definition, family) -> list[str]:
    """Return the names of the cells that `assert_others_fail` checks."""
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
    # The comparison accepts the rule itself, so that it does not fail for all.
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
