"""Families of traces of the conformance kit: each asks one question of an optimiser."""

from typing import NamedTuple


class Family(NamedTuple):
    """One question: gradients, settings that differ from the usual ones, and losses."""

    name: str
    about: str
    grads: list[list[float]] | None = None
    settings: dict[str, float] = {}  # noqa: RUF012
    kind: str = "paper"
    dtype: str = "float64"
    minima: list[float] | None = None


def random_signs(num_steps: int, seed: int) -> list[float]:
    """Return gradients -1, 0 and 1 of a linear congruential generator."""
    found = []
    for _ in range(num_steps):
        seed = (1103515245 * seed + 12345) % 2**31
        found.append((0.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0)[seed >> 28])
    return found


CHANGES = [[1.0, 1.0, 1.0, -1.0, 1.0, 1.0, -1.0, -1.0]]
TINY = [1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0]
OWN_FACTORS = {"eta_minus": 0.3, "eta_plus": 1.1}
FAMILIES = [
    Family(
        "first_step",
        "The first step has the length of the first step size, which is not adapted.",
        [[3.0], [-0.25], [0.0]],
        {"first_step": 0.07},
    ),
    Family(
        "growth",
        "While the sign stays, the step size grows by eta_plus, from the second step.",
        [[1.0] * 6],
    ),
    Family("sign_changes", "What the rule does where the sign changes.", CHANGES),
    Family(
        "change_and_stay",
        "After a change of sign, the gradient keeps its new sign: when does the step "
        "size grow again?",
        [[1.0, 1.0, -1.0, -1.0, -1.0, 1.0]],
    ),
    Family(
        "alternation",
        "The sign changes at each step: rules that pause after a change shrink the "
        "step size at every second step only.",
        [[1.0, -1.0, 1.0, -1.0, 1.0, -1.0]],
        {"first_step": 0.8},
    ),
    Family(
        "zeros",
        "A gradient of 0 moves nothing, and the step size stays.",
        [[0.0, 1.0, 1.0, 0.0, 1.0, 1.0, -1.0, 0.0, 1.0]],
    ),
    Family(
        "zero_forgets",
        "After a gradient of 0, the next gradient is compared with 0, not with an "
        "older gradient.",
        [[1.0, 0.0, -1.0, -1.0], [1.0, 1.0, 0.0, -1.0]],
    ),
    Family(
        "largest_step",
        "The step size stays below max_step, and shrinks from there.",
        [[1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0]],
        {"first_step": 45.0},
    ),
    Family(
        "smallest_step",
        "The step size stays above min_step, and grows from there.",
        [[1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0]],
        {"first_step": 1.5e-6},
    ),
    Family(
        "own_bounds",
        "Bounds are those that were given.",
        [[1.0, 2.0, 0.5, -3.0, -1.0, -1.0, 1.0, 0.0, 1.0, 1.0]],
        {"min_step": 0.04, "max_step": 0.13},
    ),
    Family(
        "sizes",
        "Only signs count, not the sizes of gradients.",
        [[1e-9, 3e5, 0.002, -7e4, 1e-6, 5.0]],
    ),
    Family(
        "weights",
        "Each weight has its own step size, and its own changes of sign.",
        [
            [1.0, 1.0, 1.0, 1.0, 1.0],
            [1.0, -1.0, -1.0, -1.0, -1.0],
            [-1.0, -1.0, 1.0, 1.0, 1.0],
            [0.0, 0.0, 0.0, -1.0, -1.0],
        ],
    ),
    Family(
        "own_factors",
        "Factors are those that were given.",
        [[1.0, 1.0, -1.0, 1.0, 1.0, -1.0, -1.0, -1.0]],
        OWN_FACTORS,
    ),
    Family(
        "descent",
        "Three quadratic losses: for programs that compute gradients themselves.",
        minima=[0.25, -0.7, 1.9],
    ),
    Family(
        "random",
        "Many steps of random signs, some of them 0.",
        [random_signs(60, 1), random_signs(60, 2)],
    ),
    Family(
        "own_factors_float32",
        "Factors that float32 rounds: a program that recognises a change of sign by "
        "the value of the factor must compare in one precision.",
        [[1.0, 1.0, -1.0, 1.0, 1.0, -1.0, -1.0, -1.0]],
        OWN_FACTORS,
        "precision",
        "float32",
    ),
    Family(
        "tiny_gradients",
        "The product of two gradients underflows in float64; their signs do not.",
        [[1e-200 * sign for sign in TINY], [1e200 * sign for sign in TINY]],
        kind="precision",
    ),
    Family(
        "tiny_gradients_float32",
        "The product of two gradients underflows in float32; their signs do not.",
        [[1e-23 * sign for sign in TINY], [1e23 * sign for sign in TINY]],
        kind="precision",
        dtype="float32",
    ),
    Family(
        "first_step_above",
        "A first step size above max_step is clipped before the first step.",
        [[1.0, 1.0, -1.0, -1.0]],
        {"first_step": 100.0},
        "convention",
    ),
    Family(
        "first_step_below",
        "A first step size below min_step is clipped before the first step.",
        [[1.0, 1.0, -1.0, -1.0]],
        {"first_step": 1e-9},
        "convention",
    ),
    Family(
        "fresh_state",
        "The same as sign_changes, later: an optimiser starts from a fresh state.",
        CHANGES,
    ),
]
# The Manhattan rule has no factors and no bounds.
OF_MANHATTAN = {
    "first_step",
    "growth",
    "sign_changes",
    "zeros",
    "sizes",
    "weights",
    "fresh_state",
}
# Rules that are no paper's: what libraries compute that differ from their paper.
OF_LIBRARIES = {
    "first_step",
    "sign_changes",
    "change_and_stay",
    "zeros",
    "weights",
    "random",
    "tiny_gradients",
    "tiny_gradients_float32",
    "first_step_above",
}
LIBRARIES = "optax_0_2_8", "torch_2_13", "fann_2_2"
FAMILIES_OF = {"manhattan": OF_MANHATTAN} | dict.fromkeys(LIBRARIES, OF_LIBRARIES)
# Traces of iRprop+ alone: {name: (question, gradients, losses)}.
LOSSES = {
    "equal_loss": (
        "An equal loss is not worse: the last change is not taken back.",
        [[1.0, 1.0, -1.0, 1.0, 1.0, -1.0]],
        [3.0, 2.0, 2.0, 1.0, 0.5, 0.5],
    ),
    "last_loss": (
        "The loss is compared with that of the last step, not with the least so far.",
        [[1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0]],
        [5.0, 3.0, 4.0, 3.5, 2.0, 1.0, 1.5],
    ),
    "loss_of_all": (
        "The loss grows or falls for all weights at once.",
        [
            [1.0, 1.0, -1.0, -1.0, 1.0, -1.0],
            [1.0, -1.0, -1.0, 1.0, -1.0, -1.0],
            [-1.0, -1.0, -1.0, 1.0, 1.0, -1.0],
        ],
        [4.0, 5.0, 3.0, 6.0, 2.0, 7.0],
    ),
}
