"""Two networks: one reads a sequence forwards in time, the other backwards.

Notation: h is the carry, y the output, θ the parameters and x the input. → marks the
forward network, ← the backward network. For a sequence of T steps,

    h→_t, y→_t = step→(θ→, h→_{t−1}, x_t),    t = 1 … T
    h←_t, y←_t = step←(θ←, h←_{t+1}, x_t),    t = T … 1.
"""

from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._losses import as_arrays
from bpvariants._settings import described
from bpvariants.gradients.remat._policies import Remat
from bpvariants.gradients.through_time._unroll import unroll
from bpvariants.types import PyTree, Step


def bidirectional(
    forward_step: Step,
    backward_step: Step,
    params: tuple[PyTree, PyTree],
    carries: tuple[PyTree, PyTree],
    xs: PyTree,
    *,
    mask: jax.Array | None = None,
    reset: jax.Array | None = None,
    initial: tuple[PyTree, PyTree] | None = None,
    remat: Remat = None,
) -> tuple[tuple[PyTree, PyTree], tuple[PyTree, PyTree]]:
    """Run one network forwards in time and another backwards, each as by `unroll`.

    A bidirectional network is not a step, because its outputs depend on future inputs.
    Gradient rules therefore do not accept a bidirectional network. Call this function
    under `jax.grad`, with your own loss on the outputs. Derivatives are exact. The cost
    is the time and memory of two calls of :func:`unroll`, plus a copy of xs. To add
    another layer, bidirectional or not, concatenate the two outputs along their
    features. The result is the xs of the other layer.

    If a mask marks padding, the backward network begins at each example's last step
    that is not padding. Both networks also skip padding in the middle of a sequence. A
    reset marks the first step of an episode. The forward network restarts before it
    runs the first step of an episode. The backward network restarts after the first
    step of an episode, before it reads the preceding episode.

    Args:
      forward_step: the network that reads from the first step to the last.
      backward_step: the network that reads from the last step to the first.
      params: a pair: the parameters of the forward network and of the backward network.
      carries: a pair, the forward network's state before the first step and the
        backward network's state after the last step, leaves [*batch, ...].
      xs: inputs of both networks, leaves [T, *batch, ...].
      mask: [T, *batch] bool, False in padding, where outputs are meaningless.
      reset: [T, *batch] bool, True where an episode begins; ignored in padding.
      initial: a pair, the carries from which the two networks restart at a reset.
        Default: carries.
      remat: which arrays the forward pass stores for the backward pass, as in
        :func:`unroll`.

    Returns:
      A pair of carries and a pair of outputs. The first carry is the forward network's
      carry after the last step that is not padding. The second carry is the backward
      network's carry after the first step that is not padding. The outputs have leaves
      [T, *batch, ...], and entry t is a network's output for x_t.

    Raises:
      ValueError: if params, carries or initial are not pairs; if lengths, shapes or
        dtypes disagree.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> add = lambda w, h, x: (h + w * x, h + w * x)
      >>> carries, xs = (jnp.zeros(1), jnp.zeros(1)), jnp.array([[1.0], [2.0], [4.0]])
      >>> mask = gradients.mask_from_lengths(jnp.array([2]), 3)
      >>> run = lambda w: gradients.bidirectional(add, add, w, carries, xs, mask=mask)
      >>> last, (before, after) = run((1.0, 1.0))
      >>> before[:2, 0].tolist(), after[:2, 0].tolist()
      ([1.0, 3.0], [3.0, 2.0])
      >>> loss = lambda w: jnp.sum(jnp.where(mask, sum(run(w)[1]), 0))
      >>> [g.item() for g in jax.grad(loss)((1.0, 1.0))]
      [4.0, 5.0]
    """
    mask, reset = as_arrays(mask=mask, reset=reset)
    initial = carries if initial is None else initial
    pairs = {"params": params, "carries": carries, "initial": initial}
    for name, pair in pairs.items():
        _check_pair(name, pair)
    options: dict[str, Any] = {"remat": remat}
    last_f, ys_f = _run(
        "forward_step",
        *(forward_step, params[0], carries[0], xs),
        options | {"mask": mask, "reset": reset, "initial": initial[0]},
    )
    ends = None if reset is None else _ends(reset, mask)
    xs, mask, ends = _reverse((xs, mask, ends))
    last_b, ys_b = _run(
        "backward_step",
        *(backward_step, params[1], carries[1], xs),
        options | {"mask": mask, "reset": ends, "initial": initial[1]},
    )
    return (last_f, last_b), (ys_f, _reverse(ys_b))


def _run(name, step, params, carry, xs, options):
    try:
        return unroll(step, params, carry, xs, **options)
    except ValueError as error:
        raise ValueError(f"for {name}: {error}") from error


def _reverse(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.flip(leaf, axis=0), tree)


def _ends(reset: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return bool [T, *batch]: whether an episode ends at each step.

    An episode ends at a step if the next step that is not padding has a reset. Resets
    in padding do not count.
    """
    none = jnp.zeros_like(reset[0])
    if mask is None:
        return jnp.concatenate([reset[1:], none[None]])
    if mask.shape != reset.shape:
        raise ValueError(
            "mask and reset must both have shape [T, *batch]; got shapes "
            f"{mask.shape} and {reset.shape}."
        )

    def body(next_begins, flags):
        begins, real = flags
        return jnp.where(real, begins, next_begins), next_begins

    return jax.lax.scan(body, none, (reset, mask), reverse=True)[1]


def _check_pair(name: str, pair: Any) -> None:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(
            f"{name} must be a pair, of forward_step and of backward_step; got "
            f"{described(pair)}."
        )
