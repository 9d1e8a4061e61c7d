"""Resilient backpropagation (Rprop): steps from the signs of gradients alone.

Notation, for each parameter θ: g_t is the gradient, Δ_t is the step size, s_t is the
sign with which the next gradient is compared, and E_t is the loss. With sign(0) = 0 and
s_0 = 0,

    a_t = s_{t−1} sign(g_t),
    Δ_t = min(η⁺ Δ_{t−1}, Δ_max) if a_t > 0,  max(η⁻ Δ_{t−1}, Δ_min) if a_t < 0,
          Δ_{t−1} if a_t = 0,
    θ_{t+1} = θ_t − D_t sign(g_t),

where η⁺ and η⁻ are factors of the step size, D_t is the length of the step, and Δ_0 is
clipped to [Δ_min, Δ_max]. If a_t < 0, the gradient has changed its sign, because the
last step went past a minimum. If a_t ≥ 0, all variants of Rprop use the length
D_t = Δ_t and store the sign s_t = sign(g_t). If a_t < 0, the variants choose different
lengths D_t and signs s_t:

    variant     D_t                                s_t
    Rprop⁺      Δ_{t−1}                            0          reverts the last step
    Rprop⁻      Δ_t                                sign(g_t)  turns back
    iRprop⁺     Δ_{t−1} if E_t > E_{t−1}, else 0   0          reverts it if E grew
    iRprop⁻     0                                  0          skips one step
    half_back   Δ_t                                0          turns back, then keeps Δ
    Manhattan   Δ_t = Δ_0 always                   sign(g_t)  Rprop⁻ with η⁺ = η⁻ = 1

No variant needs to store the last step of θ to revert it. A step is reverted only if
the gradient changes its sign. In this case, the last step was −Δ_{t−1} s_{t−1}, minus
the old step size times the stored sign. After a skipped or reverted step, the stored
sign is 0, so the next gradient cannot count as a sign change.

Several libraries contain half_back under the name iRprop⁻. Some relatives of Rprop are
not implemented, because their papers were not available:

- JRprop and GJRprop: the only two public implementations disagree with each other.
- SARPROP: a comment in the only public implementation doubts a sign in the equations,
  and a term that the implementation calls weight decay makes weights grow.
- ARCprop: no public implementation was found.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bpvariants._dtypes import cast_like
from bpvariants.updates._foreign_names import refuses, TORCH_RPROP
from bpvariants.updates._params import (
    as_grads,
    check_number,
    check_signed,
    check_state,
    per_leaf,
    PerLeaf,
    wide,
)
from bpvariants.updates.resilient import _rprop_packed, _rprop_plain
from bpvariants.updates.resilient._rprop_checks import (
    check_choice,
    check_settings,
    check_weight_decay,
)
from bpvariants.updates.resilient._rprop_layouts import (
    computing,
    Kept,
    LAYOUTS,
    Numbers,
    PACKED,
    RpropLayout,
)

VARIANTS = ("rprop_plus", "rprop_minus", "irprop_plus", "irprop_minus")
VARIANTS += ("half_back", "manhattan")
_NAMES = {"irprop_minus": "rprop (irprop_minus)"}  # names in error messages


class ScaleByRpropState(NamedTuple):
    """State of :func:`scale_by_rprop`; `step_sizes` and `signs` are like params.

    In the layouts "packed" and "bfloat16", each element of `step_sizes` stores both the
    step size Δ_t and the sign s_t with which the next gradient is compared. The sign
    takes the sign bit and the last bit of the mantissa; all other bits belong to the
    step size.
    """

    step_sizes: optax.Updates  # step sizes Δ_t; bfloat16 in the layout "bfloat16"
    signs: Any  # signs s_t, or ±2 after a sign change; None if packed
    last_value: Any  # []: the loss E_t, for iRprop⁺; else None
    tells_flips: jax.Array  # []: whether the state records sign changes


@refuses(**TORCH_RPROP)
def scale_by_rprop(
    learning_rate: PerLeaf = 0.01,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: PerLeaf = 1e-6,
    max_step_size: PerLeaf = 50.0,
    *,
    weight_decay: float | jax.Array | None = None,
    variant: str = "irprop_minus",
    state: str = "int8_sign",
) -> optax.GradientTransformationExtraArgs:
    """Replace each gradient by the step of an Rprop variant; do not negate the step.

    Exceptions, memory and time are as in :func:`irprop_minus`.

    Args:
      learning_rate: first step size Δ_0, which only `init` reads; a number, or a pytree
        like params of numbers and arrays.
      eta_minus: factor 0 < η⁻ < 1 that shrinks step sizes if gradients change sign.
      eta_plus: factor η⁺ > 1 that enlarges step sizes if gradients keep their signs.
      min_step_size: least step size Δ_min; a number, or a pytree like params.
      max_step_size: greatest step size Δ_max; a number, or a pytree like params.
      weight_decay: factor λ ≥ 0; λ θ is added to the gradient before its sign is taken.
      variant: "rprop_plus", "rprop_minus", "irprop_plus", "irprop_minus", "half_back"
        or "manhattan". The `update` of "irprop_plus" needs the loss as `value=`, as in
        :func:`irprop_plus`.
      state: name of the state's format in the table of :func:`irprop_minus`.

    Returns:
      An optax.GradientTransformation, whose updates are not yet negated.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> rule = updates.scale_by_rprop(0.5, variant="rprop_plus")
      >>> rule.update(jnp.array(-7.0), rule.init(jnp.array(0.0)))[0].item()
      -0.5
    """
    check_choice("variant", variant, VARIANTS)
    check_choice("state", state, LAYOUTS)
    settings = Numbers(eta_minus, eta_plus, min_step_size, max_step_size)
    check_settings("scale_by_rprop", learning_rate, *settings)
    check_weight_decay(weight_decay)
    layout, needs_value = RpropLayout(state, variant), variant == "irprop_plus"
    array_rule = array_rule_of(layout)
    if variant == "manhattan":
        settings = settings._replace(eta_minus=1.0, eta_plus=1.0)
    numbers = partial(_numbers, settings, layout)

    def init(params):
        check_signed(params)
        leaves, structure = jax.tree.flatten(wide(params))
        rates = per_leaf("learning_rate", learning_rate, params)
        dtypes = [computing(leaf.dtype, layout) for leaf in leaves]
        each = zip(leaves, rates, numbers(dtypes, params), strict=True)
        kept = [_start(*of_one, layout) for of_one in each]
        last_value = jnp.asarray(jnp.inf, float) if needs_value else None
        return _as_state(structure, kept, last_value, layout)

    def update(updates, state, params=None, *, value=None, **extra_args):
        del extra_args
        _check_state(state, layout, needs_value)
        updates = as_grads(updates, state.step_sizes)
        worse = None
        if needs_value:
            worse, value = compare(value, state.last_value)
        all_kept = kept_leaves(state)
        dtypes = [computing(steps.dtype, layout) for steps, _ in all_kept]
        leaves, structure = jax.tree.flatten(updates)
        decayed = _decayed(leaves, params, weight_decay, dtypes, state)
        moves, new = [], []
        each = zip(decayed, all_kept, numbers(dtypes, updates), strict=True)
        for g, kept, settings in each:
            move, kept = array_rule.advance(g, kept, settings, layout, worse)
            moves.append(move)
            new.append(kept)
        moves = cast_like(moves, leaves)
        value = value if needs_value else None
        state = _as_state(structure, new, value, layout)
        return structure.unflatten(moves), state

    return optax.GradientTransformationExtraArgs(init, update)


def _numbers(settings, layout, dtypes, params):
    """Yield each array's settings; bounds are rounded in the same way as step sizes."""
    least = per_leaf("min_step_size", settings.min_step_size, params)
    greatest = per_leaf("max_step_size", settings.max_step_size, params)
    for dtype, *ends in zip(dtypes, least, greatest, strict=True):
        cast = partial(_cast, dtype=dtype)
        low, high = (array_rule_of(layout).rounded(cast(end), layout) for end in ends)
        etas = cast(settings.eta_minus), cast(settings.eta_plus)
        yield Numbers(*etas, low, high)


def _start(leaf, rate, settings, layout):
    """Return an array's state before its first gradient, with clipped step sizes."""
    array_rule = array_rule_of(layout)
    like = jnp.asarray(leaf, computing(leaf.dtype, layout))
    first = array_rule.rounded(_cast(rate, like.dtype), layout)
    first = jnp.clip(first, settings.min_step_size, settings.max_step_size)
    return array_rule.start(jnp.full_like(like, first), layout)


def kept_leaves(state: ScaleByRpropState) -> list[Kept]:
    """Return, for each array of params, its step sizes and its signs (or None)."""
    steps = jax.tree.leaves(state.step_sizes)
    marks = [None] * len(steps) if state.signs is None else jax.tree.leaves(state.signs)
    return list(zip(steps, marks, strict=True))


def array_rule_of(layout: RpropLayout) -> Any:
    """Return the module that implements Rprop on one array in this layout."""
    return _rprop_packed if layout.state in PACKED else _rprop_plain


def _cast(number, dtype):
    """Cast a setting; a float32 tracer would turn bfloat16 steps into float32 steps."""
    return jnp.asarray(number, dtype)


def _as_state(structure, kept, last_value, layout):
    steps = structure.unflatten([steps for steps, _ in kept])
    packed = layout.state in PACKED
    marks = None if packed else structure.unflatten([marks for _, marks in kept])
    tells_flips = jnp.asarray(not packed or layout.rests)
    return ScaleByRpropState(steps, marks, last_value, tells_flips)


def _check_state(state: Any, layout: RpropLayout, needs_value: bool) -> None:
    """Check that a state has the layout and the fields of this optimizer's states."""
    name = _NAMES.get(layout.variant, layout.variant)
    check_state(name, state, ScaleByRpropState)
    own = layout_of(state) in (layout.state, None)
    if not own or (state.last_value is None) == needs_value:
        got = f" {'without' if state.last_value is None else 'with'} a last value"
        raise ValueError(
            f"state must be of this optimizer, {name} with state="
            f"{layout.state!r}; got one with state={layout_of(state)!r}{got}. Use the "
            "optimizer that made it, or call optimizer.init(params)."
        )


def layout_of(state: ScaleByRpropState) -> str | None:
    """Return the name of a state's layout, or None if the state has no arrays."""
    steps, marks = map(jax.tree.leaves, (state.step_sizes, state.signs))
    if not steps:
        return None
    if not marks:
        return "bfloat16" if steps[0].dtype == jnp.bfloat16 else "packed"
    return "int8_sign" if marks[0].dtype == jnp.int8 else "float32"


def _decayed(leaves, params, weight_decay, dtypes, state):
    """Return gradients, plus weight decay λ θ if given, in the step sizes' dtypes."""
    if weight_decay is None:
        return list(map(_narrowed, leaves, dtypes))
    if params is None:
        raise ValueError(
            "rprop with weight_decay needs params: call optimizer.update(grads, state, "
            "params)."
        )
    params = jax.tree.leaves(as_grads(params, state.step_sizes, "params"))

    def decayed(g, p, dtype):
        narrow = jnp.finfo(g.dtype).bits < jnp.finfo(dtype).bits
        wider = dtype if narrow else g.dtype  # weight decay may underflow in float16
        g, p, factor = (jnp.asarray(x, wider) for x in (g, p, weight_decay))
        return _narrowed(g + factor * p, dtype)

    return list(map(decayed, leaves, params, dtypes))


def _narrowed(g, dtype):
    """Cast a gradient; if the cast could underflow to 0, cast only its sign."""
    narrower = jnp.finfo(dtype).bits < jnp.finfo(g.dtype).bits
    return (jnp.sign(g) if narrower else g).astype(dtype)


def compare(value, last):
    """Return whether the loss grew, and the loss to store for the next comparison."""
    if value is None:
        raise ValueError(
            "irprop_plus needs value, the loss at params where the gradient was taken: "
            "call optimizer.update(grads, state, params, value=value)."
        )
    check_number("value", value, remedy="give the loss, a real number")
    if jnp.shape(value) != ():
        raise ValueError(
            "irprop_plus needs a value of shape (), the loss of the full batch, got "
            f"shape {jnp.shape(value)}; give the mean loss that was differentiated."
        )
    value = jnp.asarray(value, last.dtype)
    # NaN counts as worse than any loss, but later losses are not compared with NaN.
    return ~(value <= last), jnp.where(jnp.isnan(value), last, value)
