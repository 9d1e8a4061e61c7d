"""Summary of Rprop's state: step sizes, and how often gradients change sign."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants.updates._params import check_number, per_leaf, PerLeaf
from bpvariants.updates.resilient._rprop import (
    array_rule_of,
    kept_leaves,
    layout_of,
    ScaleByRpropState,
)
from bpvariants.updates.resilient._rprop_layouts import RpropLayout

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


class RpropReport(NamedTuple):
    """Result of :func:`rprop_report`: dictionaries with one entry per leaf of params.

    Attributes:
      step_sizes: [5]: minimum, three quartiles and maximum of the leaf's step sizes.
      at_min: []: fraction of step sizes that equal the lower bound Δ_min.
      at_max: []: fraction of step sizes that equal the upper bound Δ_max.
      flips: []: fraction of gradient elements that changed sign at the last step; NaN
        if the state does not record sign changes.
      sizes: number of step sizes of the leaf.
    """

    step_sizes: dict[str, jax.Array]
    at_min: dict[str, jax.Array]
    at_max: dict[str, jax.Array]
    flips: dict[str, jax.Array]
    sizes: dict[str, int]

    def table(self) -> str:
        """Return the report as text, with one line for each leaf."""
        header = ["leaf", "steps", "least", "25 %", "median", "75 %", "greatest"]
        lines = [[*header, "at min", "at max", "flips"]]
        for name, size in self.sizes.items():
            shares = [each[name] for each in (self.at_min, self.at_max, self.flips)]
            numbers = [f"{step:.3g}" for step in np.asarray(self.step_sizes[name])]
            shown = ["-" if np.isnan(share) else f"{share:.1%}" for share in shares]
            lines.append([name, str(size), *numbers, *shown])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        first, *others = widths
        return "\n".join(
            "  ".join([line[0].ljust(first), *map(str.rjust, line[1:], others)])
            for line in lines
        )


def rprop_report(
    state: Any, *, min_step_size: PerLeaf = 1e-6, max_step_size: PerLeaf = 50.0
) -> RpropReport:
    """Summarise the step sizes and sign changes of each leaf of params.

    If many step sizes are at the lower bound Δ_min and many gradients change sign, the
    gradients are mostly noise, because they are from mini-batches, or because the
    training has converged. If the signs of gradients are random, the fraction of sign
    changes is ½ with Rprop⁻. The fraction is ⅓ with variants that set the stored sign
    to 0 after a sign change. With a stored sign of 0, the next gradient cannot count as
    a sign change. The report works within `jit`, and takes about as long as sorting the
    step sizes.

    Args:
      state: state of an optimizer of the Rprop family, or of a chain, mask or other
        wrapper around one or more such optimizers.
      min_step_size: lower bound Δ_min of step sizes, as given to the optimizer; needed
        for `at_min`.
      max_step_size: upper bound Δ_max of step sizes, as given to the optimizer; needed
        for `at_max`.

    Returns:
      A :class:`RpropReport`, whose method `table()` returns text to print.

    Raises:
      ValueError: if `state` contains no state of the Rprop family.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> optimizer = updates.rprop(0.1)
      >>> state = optimizer.init({"w": jnp.ones(4)})
      >>> for grads in ([1.0, 1.0, 2.0, 0.0], [1.0, -1.0, 2.0, 0.0]):
      ...     _, state = optimizer.update({"w": jnp.array(grads)}, state)
      >>> print(updates.rprop_report(state).table())
      leaf  steps  least    25 %  median  75 %  greatest  at min  at max  flips
      w         4   0.05  0.0875    0.11  0.12      0.12    0.0%    0.0%  25.0%
    """
    is_rprop = lambda node: isinstance(node, ScaleByRpropState)
    found = [
        (path, node)
        for path, node in jax.tree.leaves_with_path(state, is_leaf=is_rprop)
        if is_rprop(node)
    ]
    if not found:
        raise ValueError(
            "state must have a ScaleByRpropState in it, as the state of rprop has; got "
            f"{type(state).__name__}."
        )
    report = RpropReport({}, {}, {}, {}, {})
    check_number("min_step_size", min_step_size, per_leaf=True)
    check_number("max_step_size", max_step_size, per_leaf=True)
    for path, each in found:
        least = per_leaf("min_step_size", min_step_size, each.step_sizes)
        greatest = per_leaf("max_step_size", max_step_size, each.step_sizes)
        prefix = jax.tree_util.keystr(path) + ": " if len(found) > 1 else ""
        names = [path for path, _ in jax.tree.leaves_with_path(each.step_sizes)]
        leaves = zip(names, kept_leaves(each), least, greatest, strict=True)
        for where, kept, low, high in leaves:
            name = prefix + jax.tree_util.keystr(where, simple=True, separator=".")
            _add(report, name or "params", kept, low, high, each)
    return report


def _add(report, name, kept, least, greatest, state):
    # The result of `see` depends on the name of the variant only for packed states that
    # do not record sign changes. The result is not used for such states, because
    # `tells_flips` is False. The name may therefore be "irprop_minus" for all states.
    layout = RpropLayout(layout_of(state) or "float32", "irprop_minus")
    rule = array_rule_of(layout)
    steps, flipped = rule.see(kept, layout)
    mean = lambda flags: jnp.mean(flags, dtype=jnp.float32)
    bound = lambda end: rule.rounded(jnp.asarray(end, steps.dtype), layout)
    levels = jnp.asarray(QUANTILES, steps.dtype)
    nothing = jnp.full(len(QUANTILES), jnp.nan, steps.dtype)
    report.sizes[name] = steps.size
    report.step_sizes[name] = jnp.quantile(steps, levels) if steps.size else nothing
    report.at_min[name] = mean(steps <= bound(least))
    report.at_max[name] = mean(steps >= bound(greatest))
    report.flips[name] = jnp.where(state.tells_flips, mean(flipped), jnp.nan)
