"""SnAp, the sparse n-step approximation: RTRL with only short-term influences.

Notation, for one example: h_t is the carry [n], θ the parameters [p], ℓ_t the loss,
g_t the gradient at step t, J_t = ∂h_t/∂h_{t−1}, I_t = ∂h_t/∂θ. SnAp approximates the
influence dh_t/dθ by M_t, [n, p]. Entry (i, j) of M is kept if θ_j can influence h_i
within `order` steps; all other entries are set to 0. P_order is the pattern of kept
entries:

    P_1 = pattern(I),    P_{k+1} = pattern(I) ∪ pattern(J) P_k
    M_t = P_order ⊙ (J_t M_{t−1} + I_t)
    g_t = ∂ℓ_t/∂h_t M_t + ∂ℓ_t/∂θ

Here pattern(A) marks the entries of A that can be nonzero, and ∂ℓ_t/∂θ is the
derivative through the readout, at fixed h_t.
"""

from bpvariants._checks import check_count
from bpvariants.gradients.online._influence.traces import Paths, trace_rule
from bpvariants.types import Loss, OnlineRule, Step


def snap(step: Step, loss: Loss, *, order: int) -> OnlineRule:
    """SnAp-n: RTRL without the influence on units that takes more than n steps.

    The rule is exact if `order` is at least 1 + the diameter of the graph of recurrent
    connections; otherwise the rule is biased. A dense cell needs order 2 to be exact,
    an element-wise cell order 1. The sparsity pattern of the influence M is found from
    the step's jaxpr, so the pattern is valid for all values. Constant masks of weights,
    and gathers and scatters with constant indices, make M sparse. A weight whose value
    is 0 does not make M sparse. The pattern for an order contains the patterns for all
    lower orders.

    If each parameter enters one unit, order 1 takes memory and time of B·p for B
    examples and p parameters. Order 1 needs only the diagonal entries of the Jacobian
    ∂h_t/∂h_{t−1}. In general, memory is B times the number of entries in the sparsity
    pattern of the influence. If most rows of the influence are needed, all rows are
    stored, and multiplied by the whole Jacobian as in rtrl. The docstring of
    :func:`rtrl` lists further limits of online rules.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      order: n ≥ 1. The influence of a parameter on an element of the carry is kept if
        the parameter can affect this element within n steps.

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is :class:`TraceState`.

    Raises:
      ValueError: if order is not an integer of at least 1, or in the same cases as
        :func:`rtrl`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.tanh.init(jax.random.key(0), 3, 8)
      >>> carry, x = cells.tanh.carry(params), jnp.ones(3)
      >>> loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
      >>> rule = gradients.snap(cells.tanh, loss, order=1)
      >>> state = rule.init(params, carry, (x, jnp.zeros(8)))
      >>> [rows.shape for rows in state.influence]  # one row for each weight
      [(1, 8), (1, 3, 8), (1, 8, 8)]

    References:
      Menick et al., "Practical real time recurrent learning with a sparse
      approximation", ICLR 2021, arXiv:2006.07232.
    """
    remedy = "for the whole influence use gradients.rtrl(step, loss)"
    check_count("order", order, remedy=remedy)
    return trace_rule("snap", step, loss, Paths(order=int(order)))
