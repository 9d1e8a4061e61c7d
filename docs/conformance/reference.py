"""Rprop in exact arithmetic, one weight at a time, as the papers print it.

This file is the source of the steps in rprop.json. It imports only the standard library
and nothing of bpvariants, so that the steps are a second opinion on bpvariants, too.
Numbers are fractions: nothing is rounded, and no product of gradients underflows.

For each weight, the memory is what the papers write: the gradient of the step before,
the step size Δ, and the change Δw of the step before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass
class Settings:
    """First step size Δ_0, factors η⁻ and η⁺, bounds Δ_min and Δ_max of step sizes."""

    first_step: Fraction
    eta_minus: Fraction
    eta_plus: Fraction
    min_step: Fraction
    max_step: Fraction
    underflow: Fraction = Fraction(0)  # of libraries: products up to here are 0


@dataclass
class Memory:
    """What one weight keeps from step to step."""

    size: Fraction
    gradient: Fraction = Fraction(0)
    change: Fraction = Fraction(0)


def exact(number: float) -> Fraction:
    """Return the decimal that Python prints for a float, not its binary value."""
    return Fraction(repr(number))


def sign(number: Fraction) -> int:
    """Return −1, 0 or 1."""
    return (number > 0) - (number < 0)


def _adapt(g, memory, settings):
    """Adapt the step size; return the sign of the product of the last two gradients."""
    product = sign(g * memory.gradient)
    if product > 0:
        memory.size = min(memory.size * settings.eta_plus, settings.max_step)
    elif product < 0:
        memory.size = max(memory.size * settings.eta_minus, settings.min_step)
    return product


def rprop_plus(g, memory, settings, worse):
    """Rprop⁺, Riedmiller & Braun (1993): take the last change back, then pause."""
    del worse
    if _adapt(g, memory, settings) < 0:
        memory.gradient = Fraction(0)
        return -memory.change
    memory.gradient, memory.change = g, -sign(g) * memory.size
    return memory.change


def rprop_minus(g, memory, settings, worse):
    """Rprop⁻, Riedmiller (1994): always −sign(g) Δ."""
    del worse
    _adapt(g, memory, settings)
    memory.gradient = g
    return -sign(g) * memory.size


def irprop_plus(g, memory, settings, worse):
    """iRprop⁺, Igel & Hüsken (2003): take the last change back if the loss grew."""
    if _adapt(g, memory, settings) < 0:
        memory.gradient = Fraction(0)
        return -memory.change if worse else Fraction(0)
    memory.gradient, memory.change = g, -sign(g) * memory.size
    return memory.change


def irprop_minus(g, memory, settings, worse):
    """iRprop⁻, Igel & Hüsken (2003): set the gradient to 0 if its sign changed."""
    del worse
    if _adapt(g, memory, settings) < 0:
        g = Fraction(0)
    memory.gradient = g
    return -sign(g) * memory.size


def half_back(g, memory, settings, worse):
    """As Rprop⁻ where the sign changes, and then a pause; printed in no paper."""
    del worse
    changed = _adapt(g, memory, settings) < 0
    memory.gradient = Fraction(0) if changed else g
    return -sign(g) * memory.size


def manhattan(g, memory, settings, worse):
    """The Manhattan rule: −sign(g) Δ_0."""
    del worse, settings
    return -sign(g) * memory.size


def optax_0_2_8(g, memory, settings, worse):
    """optax.rprop up to 0.2.8: iRprop⁻ one step late; a change of sign drops a step."""
    del worse
    product = sign(g * memory.change)
    if product:
        factor = settings.eta_plus if product > 0 else settings.eta_minus
        memory.size = _clipped(memory.size * factor, settings)
    late = Fraction(0) if product < 0 else memory.change
    memory.change = Fraction(0) if product < 0 else sign(g) * memory.size
    return -late


def torch_2_13(g, memory, settings, worse):
    """torch.optim.Rprop: iRprop⁻, but a product of gradients that underflows is 0."""
    if abs(g * memory.gradient) <= settings.underflow:
        memory.gradient = Fraction(0)
    return irprop_minus(g, memory, settings, worse)


def fann_2_2(g, memory, settings, worse):
    """FANN: a zero grows the step, and moves up; the first step grows, too."""
    del worse
    memory.size = max(memory.size, Fraction(1, 10_000))
    if g * memory.gradient >= -settings.underflow:
        memory.size = min(memory.size * settings.eta_plus, settings.max_step)
    else:
        memory.size = max(memory.size * settings.eta_minus, settings.min_step)
        g = Fraction(0)
    memory.gradient = g
    return -memory.size if g > 0 else memory.size


RULES: dict[str, Callable] = {
    rule.__name__: rule
    for rule in (
        rprop_plus,
        rprop_minus,
        irprop_plus,
        irprop_minus,
        half_back,
        manhattan,
        optax_0_2_8,
        torch_2_13,
        fann_2_2,
    )
}
NOT_CLIPPED = "optax_0_2_8", "fann_2_2"


def start(rule: str, settings: Settings, num_weights: int) -> list[Memory]:
    """Return each weight's memory; the first step size is clipped to its bounds."""
    first = settings.first_step
    if rule not in NOT_CLIPPED:
        first = _clipped(first, settings)
    return [Memory(first) for _ in range(num_weights)]


def _clipped(size, settings):
    return min(max(size, settings.min_step), settings.max_step)


def play(
    rule: str,
    settings: Settings,
    grads: Sequence[Sequence[Fraction]],
    values: Sequence[Fraction] | None = None,
) -> list[list[Fraction]]:
    """Return the changes of each weight, one row a weight, as `grads` has them."""
    memories = start(rule, settings, len(grads))
    steps: list[list[Fraction]] = [[] for _ in grads]
    for t in range(len(grads[0])):
        worse = t > 0 and values is not None and values[t] > values[t - 1]
        for row, memory, changes in zip(grads, memories, steps, strict=True):
            changes.append(RULES[rule](row[t], memory, settings, worse))
    return steps


def descend(
    rule: str, settings: Settings, minima: Sequence[Fraction], num_steps: int
) -> tuple[list[list[Fraction]], list[Fraction], list[list[Fraction]]]:
    """Minimise Σ (w − m)² / 2 from w = 0; return gradients, losses and changes."""
    memories, weights = (
        start(rule, settings, len(minima)),
        [Fraction(0) for _ in minima],
    )
    grads: list[list[Fraction]] = [[] for _ in minima]
    steps: list[list[Fraction]] = [[] for _ in minima]
    values: list[Fraction] = []
    for t in range(num_steps):
        now = [w - m for w, m in zip(weights, minima, strict=True)]
        values.append(sum((g * g for g in now), Fraction(0)) / 2)
        worse = t > 0 and values[t] > values[t - 1]
        for i, memory in enumerate(memories):
            grads[i].append(now[i])
            steps[i].append(RULES[rule](now[i], memory, settings, worse))
            weights[i] += steps[i][-1]
    return grads, values, steps
