"""What a checkpoint policy costs, told before anything runs."""

import jax
import jax.numpy as jnp

from bpvariants._checks import check_floating, step_shapes
from bpvariants._losses import with_loss
from bpvariants.gradients._checkpoint import check_count, Checkpoint
from bpvariants.gradients._policy_cost import Cost, policy_cost
from bpvariants.gradients._step_bytes import measure, StepBytes
from bpvariants.types import Loss, PyTree, Step


def predicted_cost(
    num_steps: int, checkpoint: Checkpoint, size: StepBytes | None = None
) -> Cost:
    """Return how often a gradient evaluates the step, and how many bytes it keeps.

    Besides these bytes, which hold the carries and what the steps compute, a program
    needs room for its inputs and outputs, and for params and their gradient. XLA may
    need somewhat less, where it sees that one thing can be had from another, or more.

    Args:
      num_steps: T.
      checkpoint: a policy, as :func:`bptt` and :func:`unroll` take it.
      size: how large a step is, as :func:`step_bytes` tells; needed for bytes, and for
        a :func:`budget`.

    Returns:
      A NamedTuple: `policy`, what is run, which for a budget is the policy chosen;
      `evaluations` of the step, in the forward and the backward pass; `bytes` kept, or
      None without a size.

    Raises:
      ValueError: if an argument is none of these, or nothing fits the budget.

    Example:
      >>> from bpvariants import gradients
      >>> size = gradients.StepBytes(carry=8, kept=48, inputs=4)
      >>> cost = gradients.predicted_cost(1000, gradients.every(10), size)
      >>> cost.evaluations, cost.bytes  # 100 carries, and 10 steps
      (2000, 1280)
    """
    check_count("num_steps", num_steps)
    if size is not None and not isinstance(size, StepBytes):
        raise ValueError(
            f"size must be what gradients.step_bytes returns, got {size!r}."
        )
    return policy_cost(int(num_steps), checkpoint, size)


def step_bytes(
    step: Step,
    params: PyTree,
    carry: PyTree,
    x: PyTree,
    loss: Loss | None = None,
    target: PyTree = None,
) -> StepBytes:
    """Return how large a step of a network is, without running it.

    With a mask or resets it is a little larger, by which example they are for, and by
    the inputs once more.

    Args:
      step: one time step of the network.
      params: its parameters; arrays, or only their shapes (`jax.ShapeDtypeStruct`), as
        all that follow.
      carry: a state, leaves [*batch, ...].
      x: inputs of one step, leaves [*batch, ...].
      loss: one loss for each example, as :func:`bptt` takes it; None for
        :func:`unroll`.
      target: what the loss compares with, leaves [*batch, ...].

    Returns:
      A NamedTuple of bytes, for the whole batch: `carry`; `kept` by the step for its
      backward pass if there is no checkpoint; `inputs`.

    Raises:
      ValueError: if shapes or dtypes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> tanh_cell = lambda w, h, x: (jnp.tanh(h @ w + x),) * 2
      >>> w, h = jnp.eye(4), jnp.zeros((2, 4))
      >>> gradients.step_bytes(tanh_cell, w, h, h)  # h, and two factors
      StepBytes(carry=32, kept=96, inputs=32)
    """
    check_floating("params", params)
    inputs = x if loss is None else (x, target)
    advance = step if loss is None else with_loss(step, loss)
    step_shapes(advance, params, carry, inputs)
    spec = lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))
    params, carry, inputs = jax.tree.map(spec, (params, carry, inputs))
    return measure(advance, params, carry, inputs)
