"""Resets of a recurrent network, from the done flags of a rollout.

Notation: at step t the agent sees the observation x_t and acts. d_t is the done flag
that the environment returns after this action. The reset r_t is True if the carry is
set to its initial value before the network sees x_t:

    r_t = d_{t−1},    t = 2 … T.

The reset r_1 is the done flag of the step before the sequence.
"""

import jax
import jax.numpy as jnp

from bpvariants._checks import check_arrays, check_flags


def resets_from_dones(
    dones: jax.typing.ArrayLike, *, first: jax.typing.ArrayLike = False
) -> jax.Array:
    """Return the resets [T, *batch] of a rollout, from its done flags.

        reset_t = done_{t−1}

    A done flag of step t says that the episode ended after step t. The next episode
    begins at step t + 1, so the carry must be reset before step t + 1, and not before
    step t. Use `resets_from_dones` if the flags are stored with the observation and the
    action of step t, and the environment returned them after this action. Do not use
    `resets_from_dones` for flags that mark the first step of an episode, such as
    `timestep.first()` of dm_env, because such flags are resets already.

    The flag of the last step, `dones[-1]`, has no effect on this sequence, because a
    done flag acts on the step after its own step. In the call for the next chunk of the
    rollout, pass `dones[-1]` as `first`. The cost is the time and memory of one copy of
    `dones`.

    Args:
      dones: [T, *batch] bool, True if an episode ended at this step. Include episodes
        that a time limit ended: `dones = terminated | truncated`.
      first: [] or [*batch] bool, whether step 1 is the first of an episode. Default:
        False, for a rollout that continues from the given carry. If the given carry is
        equal to `initial`, `first` has no effect.

    Returns:
      The argument `reset` of gradient rules and of `gradients.unroll`, [T, *batch].
      Row t is the argument `reset` of an online rule's `update` at step t. If the carry
      that you pass to the rule is not the start of an episode, pass `initial` too.

    Raises:
      ValueError: if dones or first are not bool, if dones has no time axis, or if first
        is neither one flag nor one for each example.

    Example:
      Two chunks of one rollout; an episode ends at the last step of the first chunk.

      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> before = jnp.array([False, True, False, True])
      >>> after = jnp.array([False, False])
      >>> gradients.resets_from_dones(before, first=True).astype(int).tolist()
      [1, 0, 1, 0]
      >>> gradients.resets_from_dones(after, first=before[-1]).astype(int).tolist()
      [1, 0]
    """
    for name, flags in {"dones": dones, "first": first}.items():
        if flags is None:
            raise ValueError(f"{name} must be [T, *batch] flags, got None.")
        check_arrays(name, flags)
    dones, first = jnp.asarray(dones), jnp.asarray(first)
    check_flags("dones", dones, ())
    check_flags("first", first, ())
    if dones.ndim == 0 or dones.shape[0] == 0:
        raise ValueError(
            "dones must be [T, *batch], one flag for each step of the rollout with "
            f"T > 0; got shape {dones.shape}. For a single step in your own loop, the "
            "reset of an online rule is the done flag that the previous step returned."
        )
    if first.shape not in ((), dones.shape[1:]):
        raise ValueError(
            f"first must be one flag, or one for each example, {dones.shape[1:]}; got "
            f"shape {first.shape}. For the next chunk of a rollout, give "
            "first=dones[-1] of the chunk before it."
        )
    start = jnp.broadcast_to(first, (1, *dones.shape[1:]))
    return jnp.concatenate([start, dones[:-1]])
