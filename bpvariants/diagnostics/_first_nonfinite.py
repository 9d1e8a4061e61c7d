"""Search for the first NaN or infinity: its time step, array and pass.

Notation: in the forward pass, step t computes the carry h_t, the output y_t and the
loss ℓ_t from h_{t−1} and the input x_t. L = Σ w·ℓ / Σ w is the mean loss with weights
w. The backward pass goes from the last step to the first; at step t, it computes
∂L/∂y_t, the part of ∂L/∂θ that comes from step t, and ∂L/∂h_{t−1}. The search checks
the arrays in the order in which the two passes compute them.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._carries import floating_leaves, replace_floating
from bpvariants._dtypes import widen
from bpvariants._examples import select
from bpvariants._jaxpr.maxima import with_stored_operands
from bpvariants._losses import (
    as_arrays,
    check_sequence,
    counted,
    effective_weights,
    losses_of,
    normalised,
    seen,
    with_loss,
)
from bpvariants._masking import blank, guarded
from bpvariants.diagnostics._faults import count_nonfinite, Fault, faults, tabulate
from bpvariants.types import Loss, PyTree, Step


class NonFinite(NamedTuple):
    """Result of :func:`first_nonfinite`: int32 numbers of NaN and infinite elements.

    Each attribute counts the NaN and infinite elements of one array. The counts have
    shape [T], one for each of T time steps, or [] if the array does not belong to a
    single step. "Like xs, [T]" is a pytree of the structure of xs with leaves [T]. The
    attributes are named after the arguments and intermediate results of a gradient
    rule: the carry h_t, the output y_t and the loss ℓ_t of step t, and the mean loss L
    with weights w.

    Attributes:
      params: like params, []: number of NaN and infinite elements in the given params.
      start: like carry, []: counts in the carry before the first step.
      initial: like carry, [T]: counts in the argument `initial`, at steps with a reset.
      xs: like xs, [T]: counts in the inputs, without padding.
      targets: like targets, [T]: counts in the targets, without padding and without
        targets of weight 0.
      weights: [T]: counts in the weights, without padding.
      carry: like carry, [T]: counts in the new carry h_t.
      y: like the output of step, [T]: counts in the output y_t, without padding.
      loss: [T]: counts in the loss ℓ_t, without padding.
      value: []: 1 if the mean loss L = Σ w·ℓ / Σ w is not finite, else 0.
      y_errors: like y, [T]: counts in ∂L/∂y_t.
      param_errors: like params, [T]: counts in the part of ∂L/∂θ from step t.
      carry_errors: like carry, [T]: counts in ∂L/∂h_{t−1}, which the backward pass
        computes at step t.
      grads: like params, []: counts in the gradient ∂L/∂θ.
    """

    params: PyTree
    start: PyTree
    initial: PyTree
    xs: PyTree
    targets: PyTree
    weights: jax.Array
    carry: PyTree
    y: PyTree
    loss: jax.Array
    value: jax.Array
    y_errors: PyTree
    param_errors: PyTree
    carry_errors: PyTree
    grads: PyTree

    @property
    def faults(self) -> list[Fault]:
        """First NaN or infinity of each array, earliest first.

        `faults` does not work within `jit`.
        """
        names = ("initial", "xs", "targets", "weights", "carry", "y", "loss", "value")
        back = {
            "y": self.y_errors,
            "params": self.param_errors,
            "carry": self.carry_errors,
            "grads": self.grads,
        }
        return faults(
            [("params", self.params), ("carry", self.start)],
            [(name, getattr(self, name)) for name in names],
            list(back.items()),
        )

    @property
    def first(self) -> Fault | None:
        """Earliest NaN or infinity, or None if all arrays are finite.

        `first` does not work within `jit`.
        """
        return next(iter(self.faults), None)

    def table(self) -> str:
        """Return text, one line for each array with NaN or infinity, earliest first."""
        return tabulate(self.faults)


def first_nonfinite(
    step: Step,
    loss: Loss,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    targets: PyTree,
    *,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    reset: jax.Array | None = None,
    initial: PyTree | None = None,
) -> NonFinite:
    """Find the first time step, array and pass in which NaN or infinity occurs.

        forward: x_t, target, weight, h_t, y_t, ℓ_t     backward: ∂L/∂y_t, ∂L/∂θ, ∂L/∂h

    The line above shows the arrays that are checked at step t, in their order. In the
    forward pass, x_t is the input, h_t the carry, y_t the output and ℓ_t the loss. The
    backward pass computes derivatives of the mean loss L. The gradient is computed as
    in `gradients.bptt`, step by step. Inputs, targets and weights in padding are
    ignored, as in all gradient rules. In padding, the network gets zeros as inputs. If
    the network's derivative at zero inputs is NaN, this NaN is found too.
    `first_nonfinite` works within `jit`, because the counts are arrays; the result's
    `first`, `faults` and `table()` work only outside of `jit`.

    Time: about as much as four forward passes. Memory: T carries, and the residuals of
    one step.

    Args:
      step: one time step of the network.
      loss: function (y, target) -> losses [*batch], one for each example.
      params: the parameters θ of the network.
      carry: the network's carry before the first step, leaves [*batch, ...].
      xs: inputs, leaves [T, *batch, ...].
      targets: targets of the loss, leaves [T, *batch, ...].
      weights: [T, *batch]: weight w of each loss.
      mask: [T, *batch] bool, False in padding.
      reset: [T, *batch] bool; True sets the carry to `initial` before the time step.
      initial: the carry after a reset. Default: `carry`.

    Returns:
      A :class:`NonFinite`. The attribute `first` is the earliest :class:`Fault`, and
      `table()` returns all faults as text.

    Raises:
      ValueError: if lengths, shapes or dtypes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import diagnostics
      >>> def network(w, h, x):
      ...     h = h + jnp.sqrt(w * x)  # √ has no derivative at 0
      ...     return h, h
      >>> args = 1.0, jnp.array(0.0), jnp.array([1.0, 0.0, 2.0, 1.0]), jnp.zeros(4)
      >>> loss = lambda y, target: (y - target) ** 2
      >>> found = diagnostics.first_nonfinite(network, loss, *args)
      >>> found.first
      Fault(direction='backward', time=1, place='params', numbers=1)
      >>> print(found.table())
      first not finite direction step numbers
      params            backward    1       1
      grads             backward            1
    """
    weights, mask, reset = as_arrays(weights=weights, mask=mask, reset=reset)
    losses = check_sequence(
        with_loss(step, loss), params, carry, xs, targets, weights, mask, reset, initial
    )
    initial = carry if initial is None else initial
    length = jax.tree.leaves(xs)[0].shape[0]
    counting = effective_weights(weights, mask)
    shape = (length, *losses.shape)
    shares = jnp.broadcast_to(normalised(counting, shape, losses.dtype), shape)
    sequences = (xs, counted(targets, weights, mask)), mask, reset

    def forward(h, inputs):
        (x, target), mask, reset = inputs
        x, target = blank((x, target), h, mask)
        put_back = _put_back(initial, mask, reset)
        new, y = guarded(step, initial, mask, reset)(params, h, x)
        losses = losses_of(loss, y, target)
        read = blank(y, h, mask)
        counts = count_nonfinite((put_back, x, seen(target), new, read, losses))
        return new, (h, losses, counts)

    _, (starts, losses, counts) = jax.lax.scan(forward, carry, sequences)
    value = jnp.sum(shares * losses)
    back = jax.tree.map(jnp.zeros_like, (floating_leaves(carry), widen(params)))
    body = partial(_one_step_back, step, loss, params, initial)
    (_, grads), errors = jax.lax.scan(
        body, back, (starts, shares, *sequences), reverse=True
    )
    at_reset, at_x, at_target, at_h, at_y, at_loss = counts
    nothing = jnp.zeros(length, jnp.int32)
    at_weight = nothing if counting is None else jax.vmap(count_nonfinite)(counting)
    return NonFinite(
        params=count_nonfinite(params),
        start=count_nonfinite(carry),
        initial=at_reset,
        xs=at_x,
        targets=at_target,
        weights=at_weight,
        carry=at_h,
        y=at_y,
        loss=at_loss,
        value=count_nonfinite(value),
        y_errors=errors[0],
        param_errors=errors[1],
        carry_errors=errors[2],
        grads=count_nonfinite(grads),
    )


def _one_step_back(step, loss, params, initial, state, inputs):
    """Propagate error signals back through one time step; count NaN and infinities."""
    errors, grads = state
    h, share, (x, target), mask, reset = inputs
    x, target = blank((x, target), h, mask)
    leaves, rebuild = floating_leaves(h), partial(replace_floating, h)

    def run(params, leaves):
        one_step = guarded(step, initial, mask, reset)
        new, y = one_step(params, rebuild(leaves), x)
        return (floating_leaves(new), floating_leaves(y)), y

    run = with_stored_operands(run, params, leaves)
    (_, read), pull_back, y = jax.vjp(run, params, leaves, has_aux=True)
    put = partial(replace_floating, y)
    losses, pull_loss = jax.vjp(lambda read: losses_of(loss, put(read), target), read)
    (read_errors,) = pull_loss(share.astype(losses.dtype))
    added, errors = pull_back((errors, read_errors))
    grads = jax.tree.map(lambda g, a: g + a.astype(g.dtype), grads, added)
    # `rebuild` replaces the floating leaves of the carry by the error signals. The
    # integer leaves stay, and cannot be NaN.
    counts = put(read_errors), added, rebuild(errors)
    return (errors, grads), count_nonfinite(counts)


def _put_back(initial: PyTree, mask, reset) -> PyTree:
    """Return `initial` for examples with a reset, and zeros for the other examples."""
    zeros = jax.tree.map(jnp.zeros_like, initial)
    if reset is None:
        return zeros
    return select(reset if mask is None else reset & mask, initial, zeros)
