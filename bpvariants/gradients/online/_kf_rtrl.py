"""Kronecker-factored RTRL (KF-RTRL): a random Kronecker product as the influence.

Notation, for one example: h_t is the carry as a vector [n], ℓ_t the loss of step t and
J_t = ∂h_t/∂h_{t−1}. The parameters Θ, a matrix [k, m], enter the step only through u_t
= â_t Θ. With biases b, weights W and U, and inputs x_t, an example is u_t = b + x_t W +
h_{t−1} U with â_t = (1, x_t, h_{t−1}) and Θ = (b; W; U). Let D_t = ∂h_t/∂u_t, [n, m].
Within one step, the influence ∂h_t/∂Θ is D_t ⊗ â_t, because ∂h_t/∂Θ_ij = D_t[:, j]
â_t[i]. RTRL computes the influence M_t = dh_t/dΘ by M_t = J_t M_{t−1} + D_t ⊗ â_t.
KF-RTRL replaces M_t by one random product Ω_t ⊗ A_t whose mean is M_t. Its factors are
Ω_t [n, m] and A_t [k]. At each step, random signs ν, ν′ are drawn from {−1, 1}:

    A_t = ν q₀ A_{t−1} + ν′ q₁ â_t,
    Ω_t = ν / q₀ J_t Ω_{t−1} + ν′ / q₁ D_t,
    dℓ_t/dΘ ≈ (∂ℓ_t/∂h_{t−1} Ω_{t−1}) ⊗ A_{t−1} + ∂ℓ_t/∂Θ.

Because E[ν ν′] = 0, E[Ω_t ⊗ A_t] = J_t E[Ω_{t−1} ⊗ A_{t−1}] + D_t ⊗ â_t for all
positive q₀ and q₁. The scales q₀ and q₁ balance the norms of the added terms, so that
the variance is small:

    q₀ = √((‖J_t Ω_{t−1}‖ + ε) / (‖A_{t−1}‖ + ε)),
    q₁ = √((‖D_t‖ + ε) / (‖â_t‖ + ε)),     ε = 10⁻⁷,

so q₀ = 1 at the first step, where A and Ω are 0.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._carries import (
    as_vectors,
    carry_dtype,
    floating_leaves,
    over_batch,
)
from bpvariants._dtypes import cast_like, widen
from bpvariants._examples import quick_norms, times
from bpvariants._jaxpr.factorised_step import (
    add_block,
    FactorisedStep,
    linearise_factors,
)
from bpvariants._losses import with_loss
from bpvariants.gradients.online._factors import (
    check_factors,
    direct_gradient,
    factorised,
)
from bpvariants.gradients.online._online_step import (
    check_state,
    enter_first_step,
    enter_step,
    OnlineStep,
)
from bpvariants.gradients.online._random import check_key, rademacher
from bpvariants.types import Loss, OnlineRule, PyTree, Step

EPSILON = 1e-7


class KroneckerFactors(NamedTuple):
    """Factors A_t and Ω_t of the influence of one block of params, float32 or wider."""

    inputs: jax.Array  # factor A_t of the inputs, [*batch, k]
    carry: jax.Array  # factor Ω_t of the carry, [*batch, n, m]


class KFRTRLState(NamedTuple):
    """State of :func:`kf_rtrl` after step t."""

    carry: PyTree
    # The factors A_t and Ω_t of each block of params, in the order in which the step's
    # jaxpr uses the blocks.
    influence: list[KroneckerFactors]
    initial: PyTree  # carry after a reset


def kf_rtrl(step: Step, loss: Loss) -> OnlineRule:
    """KF-RTRL, an unbiased estimate of RTRL's gradient from Kronecker products.

        A_t = ν q₀ A_{t−1} + ν′ q₁ â_t,      Ω_t = ν / q₀ J_t Ω_{t−1} + ν′ / q₁ D_t

    The Kronecker product Ω_t ⊗ A_t estimates the influence of a weight matrix on the
    carry h_t. Params enter the step as u_t = â_t Θ, with inputs â_t and a matrix Θ of
    params. J_t is the Jacobian ∂h_t/∂h_{t−1}, and D_t is ∂h_t/∂u_t. The scales q₀ and
    q₁ keep the variance small, and ν, ν′ are random signs ±1.

    The mean of the estimate over the signs is the gradient of :func:`rtrl`. If params
    do not change along a sequence, the mean for the sequence is the gradient of
    :func:`bptt`. Each matrix that the carry depends on must be used once, in a product
    with one vector. All other params that the carry depends on must be biases. Before
    it uses params in a product, the step may rearrange them and multiply them by
    constants. An example of a constant is a mask that does not depend on params, carry
    or inputs.

    If several products and biases are used only in their sum, they share one pair of
    factors A and Ω. `cells.tanh` and `cells.lstm` have one pair. `cells.gru` has three
    pairs, because its reset gate separates the products. Flax cells have one pair for
    each gate. The rule finds the pairs in the step's jaxpr while tracing, except in
    loops, and in functions made by `jax.custom_jvp`. Each example and each pair has its
    own random signs.

    A pair of factors belongs to a product u = â Θ of a vector â [k] and a matrix Θ [k,
    m]. For B examples with n carry elements each, one pair needs memory of B·(n·m + k).
    For a tanh network, this memory is of order B·n², whereas :func:`rtrl` needs order
    B·n³. An update takes the time of B·(n + 1) backward passes and B·n²·m
    multiplications. For params that the carry does not depend on (a readout), the
    gradient is exact, without extra memory or time.

    `step` gets one example at a time, as in :func:`rtrl`. If the carry before the first
    step depends on params (a learned h_0), this carry is treated as a constant.

    Args:
      step: one time step of the network.
      loss: one loss for each example.

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is :class:`KFRTRLState`.
      `update` needs `key`, a new `jax.random.key` at each step.

    Raises:
      ValueError: in `init`, if params are not real floating arrays or carry is complex;
        in `update`, if there is no key; in both, if the step uses params in a way that
        is not described above, for example a matrix in two products, or if shapes or
        dtypes of the arguments disagree.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.tanh.init(jax.random.key(0), 2, 3)
      >>> carry = cells.tanh.carry(params)
      >>> loss = lambda y, target: jnp.sum((y - target) ** 2)
      >>> rule = gradients.kf_rtrl(cells.tanh, loss)
      >>> x, target = jnp.ones(2), jnp.zeros(3)
      >>> state = rule.init(params, carry, (x, target))
      >>> [jnp.shape(factor) for factor in state.influence[0]]  # â = (1, x, h)
      [(6,), (3, 3)]
      >>> key = jax.random.key(1)
      >>> value, grads, state = rule.update(params, state, x, target, key=key)

    References:
      Mujika, Meier & Steger, "Approximating real-time recurrent learning with random
      Kronecker factors", 2018, arXiv:1805.10842.
    """
    return _with_signs(step, loss, rademacher)


def _with_signs(
    step: Step, loss: Loss, draw: Callable[[Any, tuple[int, ...], Any], jax.Array]
) -> OnlineRule:
    """Return the KF-RTRL rule that draws random signs by draw(key, shape, dtype)."""
    advance = with_loss(step, loss)

    def init(params, carry, inputs, *, initial=None):
        now, initial = enter_first_step(advance, params, carry, inputs, initial)
        rank = len(now.batch)
        program = factorised(advance, params, now, rank)
        factors = _zero_factors(program, now.start, now.batch)
        return KFRTRLState(now.start, factors, initial)

    def update(
        params, state, x, target, *, weight=None, mask=None, reset=None, key=None
    ):
        check_state("kf_rtrl", state, KFRTRLState)
        check_key("kf_rtrl", key)
        carry, influence, initial = state
        now = enter_step(
            advance, params, carry, initial, x, target, weight, mask, reset
        )
        rank = len(now.batch)
        program = factorised(advance, params, now, rank)
        check_factors(influence, _zero_factors(program, carry, now.batch))
        entering = now.restarted(influence)

        value, new, direct, errors = direct_gradient(now, params)
        grads, leaving = widen(direct), influence
        if influence:  # if the list is empty, the carry depends on no params
            grads = _add_influence(grads, errors, entering, program, rank)
            signs = draw(key, (*now.batch, len(influence), 2), influence[0].carry.dtype)
            leaving = _propagate(program, params, now, entering, signs)
        new, leaving = now.kept((new, leaving), (carry, influence))
        return value, cast_like(grads, params), KFRTRLState(new, leaving, initial)

    return OnlineRule(init, update)


def _zero_factors(
    program: FactorisedStep, carry: PyTree, batch: tuple[int, ...]
) -> list[KroneckerFactors]:
    """Return the factors A and Ω of each block before the first step: zeros."""
    zeros = lambda *shape: jnp.zeros((*batch, *shape), carry_dtype(carry))
    size = sum(math.prod(a.shape[len(batch) :]) for a in floating_leaves(carry))
    shapes = [block.parameters.shape for block in program.blocks]
    return [KroneckerFactors(zeros(k), zeros(size, m)) for k, m in shapes]


def _add_influence(
    direct: PyTree,
    errors: list[jax.Array],
    influence: list[KroneckerFactors],
    program: FactorisedStep,
    batch_rank: int,
) -> PyTree:
    """Add to the gradient the part that goes through the old carry h_{t−1}.

    `direct` is the gradient of the loss at fixed h_{t−1}, and `errors` are the
    derivatives of the loss with respect to h_{t−1}. Let e be the errors of one example
    as a vector. For each pair of factors A and Ω in `influence`, the outer product of A
    and e Ω is added to the gradient.
    """
    grads, structure = jax.tree.flatten(direct)
    axes = tuple(range(batch_rank))
    dtype = influence[0].carry.dtype
    error, _ = as_vectors(errors, errors[0].shape[:batch_rank], dtype)
    for block, (inputs, carry) in zip(program.blocks, influence, strict=True):
        changes = jnp.matmul(error[..., None, :], carry)[..., 0, :]
        outer = jnp.tensordot(inputs, changes, axes=(axes, axes))
        grads = add_block(grads, block, program.scaled(block, outer))
    return structure.unflatten(grads)


def _propagate(
    program: FactorisedStep,
    params: PyTree,
    now: OnlineStep,
    influence: list[KroneckerFactors],
    signs: jax.Array,
) -> list[KroneckerFactors]:

    def of_example(params, start_and_carries, inputs):
        start, carries = start_and_carries
        return linearise_factors(program, params, start, inputs, carries)

    linearise = over_batch(of_example, len(now.batch))
    start = now.start, [old.carry for old in influence]
    products, immediate = linearise(params, start, now.inputs)
    leaving = []
    parts = zip(influence, products, immediate, strict=True)
    for i, (old, pushed, (inputs, slopes)) in enumerate(parts):
        old_sign, new_sign = signs[..., i, 0], signs[..., i, 1]
        norms = quick_norms((pushed, old.inputs, slopes, inputs), len(now.batch))
        of_pushed, of_old, of_slopes, of_inputs = (size + EPSILON for size in norms)
        q0 = jnp.sqrt(of_pushed / of_old)
        q1 = jnp.sqrt(of_slopes / of_inputs)
        inputs = times(old_sign * q0, old.inputs) + times(new_sign * q1, inputs)
        carry = times(old_sign / q0, pushed) + times(new_sign / q1, slopes)
        leaving.append(KroneckerFactors(inputs, carry))
    return leaving
