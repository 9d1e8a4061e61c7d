"""Real-time recurrent learning: the exact gradient, contracted forwards.

Notation, for one example: h_t is the carry as a vector [n], θ the parameters as a
vector [p], ℓ_t the loss of step t. With J_t = ∂h_t/∂h_{t−1} and I_t = ∂h_t/∂θ, the
influence M_t = dh_t/dθ, [n, p], follows

    M_t = J_t M_{t−1} + I_t,

and with it the gradient of a loss is known as soon as the loss is:

    dℓ_t/dθ = ∂ℓ_t/∂h_{t−1} M_{t−1} + ∂ℓ_t/∂θ.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import cast_like, widen
from bpvariants.gradients._jacobians import (
    floating_leaves,
    linearise,
    replace_floating,
)
from bpvariants.gradients._losses import with_loss
from bpvariants.gradients._online_step import check_start, check_state, enter_step
from bpvariants.types import Loss, OnlineRule, PyTree, Step


class RTRLState(NamedTuple):
    """State of :func:`rtrl` after step t."""

    carry: PyTree  # h_t
    # M_t as `jax.jacobian` gives it, float32 or wider: for each floating leaf of the
    # carry, a tree like params of arrays [*carry leaf's shape, *parameter's shape]
    influence: list[PyTree]
    initial: PyTree  # what a reset puts back


def rtrl(step: Step, loss: Loss) -> OnlineRule:
    """Real-time recurrent learning, BPTT's gradient without going back in time.

    Exact while params stay the same; if they change at every step, M_t keeps terms
    taken at older ones. For B examples, memory is B·n·p whatever T is; a step takes
    the time of B·(n + 1) backward passes through it and B·n²·p multiplications in J M,
    where p counts only arrays of params that the carry depends on (no readout, whose
    influence is stored, as zeros, but not computed).

    The network sees one example at a time, as a batch of one. So what the step draws at
    random in the shape of its batch, such as dropout, is the same for all examples, and
    an array with batch axes must come in with x. A carry that depends on params before
    the first step (a learned h_0) is taken as a constant.

    Args:
      step: one time step of the network.
      loss: one loss for each example.

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is :class:`RTRLState`.

    Raises:
      ValueError: in `init`, if params or carry are not real floating arrays; when
        `update` is called, if shapes or dtypes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> rule = gradients.rtrl(integrate, lambda y, target: (y - target) ** 2)
      >>> state = rule.init(2.0, jnp.array(0.0))
      >>> for x, target in [(1.0, 0.0), (1.0, 0.0)]:
      ...     value, grad, state = rule.update(2.0, state, x, target)
      >>> value.item(), state.influence[0].item(), grad.item()  # (2w)², 2, 8w
      (16.0, 2.0, 16.0)

    References:
      Williams & Zipser, "A learning algorithm for continually running fully recurrent
      neural networks", Neural Computation 1(2), 1989, doi:10.1162/neco.1989.1.2.270.
    """
    advance = with_loss(step, loss)

    def init(params, carry, initial=None, batch_shape=None):
        del batch_shape  # every leaf of the state begins with it
        carry, initial = check_start(params, carry, initial)
        zeros = lambda h, theta: jnp.zeros(h.shape + jnp.shape(theta), widen(h).dtype)
        influence = [
            jax.tree.map(lambda theta, h=h: zeros(h, theta), params)
            for h in floating_leaves(carry)
        ]
        return RTRLState(carry, influence, initial)

    def update(params, state, x, target, *, weight=None, mask=None, reset=None):
        check_state("rtrl", state, RTRLState)
        carry, influence, initial = state
        now = enter_step(
            advance, params, carry, initial, x, target, weight, mask, reset
        )
        entering = now.restarted(influence)

        def mean_loss(params, leaves):
            start = replace_floating(now.start, leaves)
            new, losses = now.examples(params, start, now.inputs)
            return jnp.sum(now.shares * losses), new

        (value, new), (direct, errors) = jax.value_and_grad(
            mean_loss, argnums=(0, 1), has_aux=True
        )(params, widen(floating_leaves(now.start)))
        grads, leaving = widen(direct), influence
        if influence:  # else the network has no state to remember anything in
            rank = len(now.batch)
            linear = linearise(now.example, params, now.start, now.inputs, rank)
            grads = _add_influence(grads, errors, entering, linear)
            leaving = _propagate(linear, entering, influence, rank)
        new, leaving = now.kept((new, leaving), (carry, influence))
        return value, cast_like(grads, params), RTRLState(new, leaving, initial)

    return OnlineRule(init, update)


def _add_influence(direct, errors, influence, linear):
    """Return ∂ℓ/∂θ + Σ_batch ∂ℓ/∂h_{t−1} M_{t−1}."""
    grads, structure = jax.tree.flatten(direct)
    _, immediate = linear
    for error, of_leaf in zip(errors, influence, strict=True):
        for i, part in enumerate(jax.tree.leaves(of_leaf)):
            if immediate[i] is not None:
                grads[i] += jnp.tensordot(error, part, axes=error.ndim)
    return structure.unflatten(grads)


def _propagate(linear, entering, influence, batch_rank):
    """Return J_t M_{t−1} + I_t; arrays of params that do not reach h keep their M."""
    jacobian, immediate = linear
    batch = jacobian.shape[:batch_rank]
    structure = jax.tree.structure(entering[0])
    by_parameter = lambda trees: [
        list(parts) for parts in zip(*map(jax.tree.leaves, trees), strict=True)
    ]
    leaving = by_parameter(influence)
    for i, old in enumerate(by_parameter(entering)):
        if immediate[i] is None or immediate[i].size == 0:
            continue
        size = math.prod(immediate[i].shape[batch_rank + 1 :])
        sizes = [math.prod(part.shape[batch_rank:]) // size for part in old]
        rows = [
            part.reshape(*batch, n, size) for part, n in zip(old, sizes, strict=True)
        ]
        matrix = jnp.concatenate(rows, axis=-2)
        matrix = jacobian @ matrix + immediate[i].reshape(matrix.shape)
        parts = jnp.split(matrix, np.cumsum(sizes)[:-1], axis=-2)
        leaving[i] = [a.reshape(b.shape) for a, b in zip(parts, old, strict=True)]
    return [structure.unflatten(leaves) for leaves in zip(*leaving, strict=True)]
