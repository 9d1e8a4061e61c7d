"""Sketched RTRL: the influence as a product of rank r, with a bound of its error.

Notation, for one example: h_t is the carry as a vector [n], ℓ_t the loss of step t and
J_t = ∂h_t/∂h_{t−1}. The parameters Θ, a matrix [k, m], enter the step only through u_t
= â_t Θ, as in KF-RTRL. Let D_t = ∂h_t/∂u_t, [n, m]. The influence M_t = dh_t/dΘ, as a
matrix [n, k·m], is replaced by a product Q_t V_t, where Q_t is [n, r] with orthonormal
columns, and V_t is [r, k·m]. Without truncation, the next influence would be

    X_t = J_t Q_{t−1} V_{t−1} + D_t ⊗ â_t.

X_t is never computed. Only the matrix K_t = X_t X_tᵀ, [n, n], is needed. With
A = J_t Q_{t−1}, and the matrix C [r, m] whose row i is the product of â_t and row i of
V_{t−1}, taken as a matrix [k, m],

    K_t = A (V_{t−1} V_{t−1}ᵀ) Aᵀ + A C D_tᵀ + D_t Cᵀ Aᵀ + ‖â_t‖² D_t D_tᵀ.

Errors of the influence matter only in directions that losses depend on, now or later.
The relevance O_t [n, n] is a moving average of these directions, of trace 1:

    O_t ∝ (1 − η) O_{t−1} + η (α c_t c_tᵀ / ‖c_t‖² + (1 − α) J_tᵀ O_{t−1} J_t / tr(…)),

with c_t = ∂ℓ_t/∂h_{t−1}, η = 0.1 and α = 0.3. Below, O is O_t + 0.01 I/n. As in the
balanced truncation of linear systems, the kept subspace is a dominant one of K_t O.
Q_t is an orthonormal basis of K_t O S_t, where S_t [n, r] is the sum of A, divided by
its norm, and a fixed random matrix. So one step of subspace iteration starts at the
last subspace, and can take up new directions. The projection Q_t W_t, with W_t [r, n],
is the best one in the norm of O:

    W_t = (Q_tᵀ O Q_t)⁻¹ Q_tᵀ O,    V_t = W_t X_t = (W_t A) V_{t−1} + (W_t D_t) ⊗ â_t.

Let C_t = (I − Q_t W_t) X_t be what is cut off, and E_t = M_t − Q_t V_t the error of the
influence, so that E_t = J_t E_{t−1} + C_t. The matrix P_t [n, n] bounds this error:
P_t − E_t E_tᵀ is positive semidefinite, because for any β > 0,

    P_t = (1 + β) J_t P_{t−1} J_tᵀ + (1 + 1/β) C_t C_tᵀ,    P_0 = 0,
    C_t C_tᵀ = (I − Q_t W_t) K_t (I − Q_t W_t)ᵀ.

The β that makes the trace smallest is √(tr C_t C_tᵀ / tr J_t P_{t−1} J_tᵀ). Hence, with
the Frobenius norm ‖·‖,

    ‖M_t − Q_t V_t‖ ≤ √(tr P_t),    ‖error of dℓ_t/dΘ‖ ≤ √(c_tᵀ P_{t−1} c_t).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._carries import as_vectors, carry_dtype, floating_leaves, over_batch
from bpvariants._checks import check_count
from bpvariants._dtypes import cast_like, widen
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
from bpvariants.gradients.online._low_rank import (
    compressed,
    LowRankFactors,
    new_relevance,
    sum_bound,
)
from bpvariants.gradients.online._online_step import (
    check_state,
    enter_first_step,
    enter_step,
)
from bpvariants.types import Loss, OnlineRule, PyTree, Step


class SketchedRTRLState(NamedTuple):
    """State of :func:`sketched_rtrl` after step t.

    Attributes:
      carry: carry after step t.
      influence: the factors Q_t and V_t of each block of params, in the order in which
        the step's jaxpr uses the blocks.
      uncertainty: [*batch, n, n], the matrix P_t, which bounds the influence's error.
      relevance: [*batch, n, n], the matrix O_t, a moving average: how much losses
        depend on each direction of the carry.
      gradient_bound: [], a bound of the Euclidean norm of the error of the gradient
        that the step has returned.
      initial: carry after a reset.
    """

    carry: PyTree
    influence: list[LowRankFactors]
    uncertainty: jax.Array
    relevance: jax.Array
    gradient_bound: jax.Array
    initial: PyTree

    @property
    def error_bound(self) -> jax.Array:
        """[*batch], a bound of the Frobenius norm of the influence's error."""
        return jnp.sqrt(jnp.trace(self.uncertainty, axis1=-2, axis2=-1))


def sketched_rtrl(step: Step, loss: Loss, *, rank: int) -> OnlineRule:
    """BIASED, with a bound of the error: RTRL with an influence of low rank.

        X_t = J_t Q_{t−1} V_{t−1} + D_t ⊗ â_t,    Q_t V_t ≈ X_t

    Params enter the step as u_t = â_t Θ, with inputs â_t and a matrix Θ of params, as
    in :func:`kf_rtrl`. J_t is the Jacobian ∂h_t/∂h_{t−1}, and D_t is ∂h_t/∂u_t. The
    influence of Θ on the carry, a matrix of n rows, is stored as the product Q_t V_t of
    rank `rank`. At each step, the product is truncated. Those directions of the carry
    are kept in which the influence X_t is large, and which the losses of the last steps
    depended on. The rule draws no random numbers.

    The state contains two bounds. `error_bound` bounds the error of the influence.
    `gradient_bound` bounds the error of the gradient that the last update returned. If
    `gradient_bound` is small compared with the gradient, the gradient is accurate. The
    bounds hold for params that do not change along the sequence, and up to rounding
    errors. In a chaotic network they grow without limit, because old errors grow there
    too. A large bound does not mean that the error is large. If the step multiplies
    params by constants, the bounds refer to the products.

    If `rank` is n or more, the rule is exact. Prefer :func:`rtrl` if its memory and
    time are affordable, and :func:`snap` if a bound is not needed and the cell is
    element-wise or gated. The params must enter the step as in :func:`kf_rtrl`: each
    matrix that the carry depends on is used once, in a product with one vector.

    For a block Θ [k, m], B examples, n carry elements and rank r, memory is
    B·(r·(n + k·m) + 2·n²). An update takes B·n backward passes through the step, about
    2·B·r²·k·m multiplications for V_t, and about B·n²·(4·n + m + 9·r) for the matrices
    [n, n]. For params that the carry does not depend on (a readout), the gradient is
    exact, without extra memory or time.

    `step` gets one example at a time, as in :func:`rtrl`. If the carry before the first
    step depends on params (a learned h_0), this carry is treated as a constant.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      rank: rank r ≥ 1 of the stored influence of each block of params.

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is
      :class:`SketchedRTRLState`.

    Raises:
      ValueError: if `rank` is not a positive integer; in `init`, if params are not real
        floating arrays or carry is complex; in both functions, if the step uses params
        in a way that is not described above, or if shapes or dtypes of the arguments
        disagree.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.tanh.init(jax.random.key(0), 2, 3)
      >>> carry = cells.tanh.carry(params)
      >>> loss = lambda y, target: jnp.sum((y - target) ** 2)
      >>> rule = gradients.sketched_rtrl(cells.tanh, loss, rank=3)
      >>> x, target = jnp.ones(2), jnp.zeros(3)
      >>> state = rule.init(params, carry, (x, target))
      >>> [jnp.shape(factor) for factor in state.influence[0]]  # Q and V; â = (1, x, h)
      [(3, 3), (3, 6, 3)]
      >>> value, grads, state = rule.update(params, state, x, target)
      >>> bool(state.error_bound < 0.01)  # the rank is n, so nothing is cut off
      True
    """
    check_count("rank", rank)
    advance = with_loss(step, loss)

    def init(params, carry, inputs, *, initial=None):
        now, initial = enter_first_step(advance, params, carry, inputs, initial)
        program = factorised(advance, params, now, len(now.batch))
        factors = _zero_factors(program, now.start, now.batch, rank)
        none = _no_error(now.start, now.batch)
        size = none.shape[-1]
        even = jnp.broadcast_to(jnp.eye(size, dtype=none.dtype) / size, none.shape)
        nothing = jnp.zeros([], none.dtype)
        return SketchedRTRLState(now.start, factors, none, even, nothing, initial)

    def update(
        params, state, x, target, *, weight=None, mask=None, reset=None, key=None
    ):
        del key  # this rule draws no random numbers
        check_state("sketched_rtrl", state, SketchedRTRLState)
        carry, influence, bound, relevance, _, initial = state
        now = enter_step(
            advance, params, carry, initial, x, target, weight, mask, reset
        )
        axes = len(now.batch)
        program = factorised(advance, params, now, axes)
        check_factors(influence, _zero_factors(program, carry, now.batch, rank))
        entering, error = now.restarted((influence, bound))
        value, new, direct, errors = direct_gradient(now, params)
        grads, kept = widen(direct), (influence, bound, relevance)
        of_gradient = jnp.zeros([], bound.dtype)
        if influence:  # if the list is empty, the carry depends on no params
            signal, _ = as_vectors(errors, now.batch, bound.dtype)
            grads = _add_influence(grads, signal, entering, program, axes)
            of_gradient = _gradient_bound(signal, error)
            advance_all = over_batch(
                lambda *args: (None, _advance(program, *args)), axes
            )
            start = now.start, entering, error, relevance, signal
            kept = advance_all(params, start, now.inputs)[1]
        new, kept = now.kept((new, kept), (carry, (influence, bound, relevance)))
        left, error, relevance = kept
        state = SketchedRTRLState(new, left, error, relevance, of_gradient, initial)
        return value, cast_like(grads, params), state

    return OnlineRule(init, update)


def _zero_factors(
    program: FactorisedStep, carry: PyTree, batch: tuple[int, ...], rank: int
) -> list[LowRankFactors]:
    """Return the factors Q and V of each block before the first step: zeros."""
    zeros = lambda *shape: jnp.zeros((*batch, *shape), carry_dtype(carry))
    size = _size(carry, len(batch))
    rank = min(rank, size)
    shapes = [block.parameters.shape for block in program.blocks]
    return [LowRankFactors(zeros(size, rank), zeros(rank, k, m)) for k, m in shapes]


def _no_error(carry: PyTree, batch: tuple[int, ...]) -> jax.Array:
    size = _size(carry, len(batch))
    return jnp.zeros((*batch, size, size), carry_dtype(carry))


def _size(carry: PyTree, batch_rank: int) -> int:
    """Return the number of floating elements of one example's carry."""
    return sum(math.prod(leaf.shape[batch_rank:]) for leaf in floating_leaves(carry))


def _gradient_bound(signal: jax.Array, uncertainty: jax.Array) -> jax.Array:
    """Return the sum over the batch of √(c P cᵀ), where c is one example's `signal`."""
    through = jnp.einsum("...i,...ij,...j", signal, uncertainty, signal)
    return jnp.sum(jnp.sqrt(jnp.maximum(through, 0)))


def _add_influence(
    grads: PyTree,
    signal: jax.Array,
    influence: list[LowRankFactors],
    program: FactorisedStep,
    batch_rank: int,
) -> PyTree:
    """Add e Q V to the gradient: the part through h_{t−1}, where e is `signal`."""
    leaves, structure = jax.tree.flatten(grads)
    axes = tuple(range(batch_rank + 1))
    for block, (basis, rows) in zip(program.blocks, influence, strict=True):
        along = jnp.matmul(signal[..., None, :], basis)[..., 0, :]  # [*batch, r]
        change = jnp.tensordot(along, rows, axes=(axes, axes))
        leaves = add_block(leaves, block, program.scaled(block, change))
    return structure.unflatten(leaves)


def _advance(
    program: FactorisedStep,
    params: PyTree,
    start: tuple[PyTree, list[LowRankFactors], jax.Array, jax.Array, jax.Array],
    inputs: PyTree,
) -> tuple[list[LowRankFactors], jax.Array, jax.Array]:
    """Return the factors of one example after a step, and the bound of their error."""
    carry, influence, error, relevance, signal = start
    size = influence[0].basis.shape[0]
    identity = jnp.eye(size, dtype=error.dtype)
    # The identity as columns [n, n] yields the Jacobian itself.
    products, factors = linearise_factors(program, params, carry, inputs, [identity])
    jacobian = products[0]
    relevance = new_relevance(relevance, jacobian, signal)
    leaving, lost = [], jnp.zeros_like(error)
    for old, (inputs_of_block, slopes) in zip(influence, factors, strict=True):
        new, cut = compressed(
            jacobian @ old.basis, old.rows, inputs_of_block, slopes, relevance
        )
        leaving.append(new)
        lost = lost + cut
    return leaving, sum_bound(jacobian @ error @ jacobian.T, lost), relevance
