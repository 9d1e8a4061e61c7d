"""Explanations of the four kinds for the page: equation, diagram, right and wrong."""

import re
from typing import NamedTuple

from experiments.compare import diagrams

# An index of one symbol in an equation, such as t in δ_t, or t+1 in δ_{t+1}.
_INDEX = re.compile(r"(?<=[δcJMIhΣℓ])_(?:\{([^}]*)\}|(t)\b)")


class Kind(NamedTuple):
    """The explanation of one kind of backpropagation, as pieces of HTML."""

    title: str
    anchor: str
    about: str  # two sentences
    equation: str  # as the tutorial prints it, or as it is
    source: str  # whose equation it is
    right: str
    wrong: str
    functions: str  # names of functions in bpvariants
    diagrams: tuple[str, ...]

    def html(self) -> str:
        """Return the explanation as HTML, without its title."""
        text = (
            f'<div class="card"><p>{self.about}</p>{"".join(self.diagrams)}'
            f'<p>{self.source}:<span class="equation"><code>{self.equation}</code>'
            f"</span></p><p><strong>Right:</strong> {self.right}</p>"
            f"<p><strong>Wrong or missing:</strong> {self.wrong}</p>"
            f"<p><strong>Functions:</strong> {self.functions}</p></div>"
        )
        return _INDEX.sub(r"<sub>\1\2</sub>", text)


STATIC = Kind(
    "Static backpropagation",
    "static",
    "The network is a chain of layers that is computed once. The error travels from "
    "the loss back through the chain, and is multiplied by one factor at each layer.",
    "∂E/∂w = ∂E/∂y · ∂y/∂s · ∂s/∂w",
    "The tutorial's equation for a weight w, with s the weighted sum and y the "
    "output of a unit",
    "The three factors are exact: their product is the gradient of "
    "<code>jax.grad</code> (study <code>chain_rule</code>).",
    "The equation alone covers an output unit. For a hidden unit, ∂E/∂y is itself a "
    "sum over all units that the unit feeds.",
    "<code>gradients.backprop</code>; with random feedback weights: "
    "<code>gradients.feedback_alignment</code>",
    (diagrams.static(),),
)
RECURRENT = Kind(
    "Recurrent backpropagation",
    "recurrent",
    "“Recurrent” has two meanings in the literature. Almeida and Pineda (1987) "
    "differentiate a network that settles at a fixed point, whose error also goes "
    "round until it settles; the tutorial means an update that adds past gradients, "
    "each multiplied by a power of a forgetting factor λ.",
    "Δw(n) = −η ∂E(n)/∂w(n) − λ ∂E(n−1)/∂w(n) − λ² ∂E(n−2)/∂w(n) − … "
    "− λⁿ⁻¹ ∂E(1)/∂w(n)",
    "The tutorial's equation",
    "Past gradients with weights that decay by λ are momentum, and work with every "
    "gradient rule.",
    "The learning rate η multiplies the newest gradient only. All terms together "
    "have the weight η + λ/(1−λ), which is 9.01 for η = 0.01 and λ = 0.9, so "
    "training diverges unless λ is small. <code>updates.forgetting</code> multiplies "
    "all terms by η; its option <code>scale_past=False</code> is the printed form. "
    "The equation of Almeida and Pineda, z = Jᵀz + ∂E/∂h*, is missing in the "
    "tutorial.",
    "<code>gradients.recurrent_backprop</code> and "
    "<code>gradients.fixed_point</code> (Almeida–Pineda); "
    "<code>updates.forgetting</code> (the tutorial)",
    (diagrams.equilibrium(),),
)
THROUGH_TIME = Kind(
    "Backpropagation through time",
    "through-time",
    "A recurrent network is unrolled into one copy for each time step, and all "
    "copies share their parameters. The error of a step travels back through all "
    "earlier steps, and the gradients of all copies are added.",
    "δ_t = c_t + δ_{t+1} J_{t+1},   ∂L/∂θ = Σ_t δ_t I_t",
    "The tutorial has no equation for this kind. It is, with c_t = ∂ℓ_t/∂h_t, J_t = "
    "∂h_t/∂h_{t−1} and I_t = ∂h_t/∂θ",
    "The gradient is exact, for every cell.",
    "The memory grows with the number of steps, so long sequences are truncated; "
    "what the truncation loses is shown below, in the task with a long memory.",
    "<code>gradients.bptt</code>, <code>gradients.truncated_bptt</code>, "
    "<code>gradients.unroll</code>",
    (diagrams.through_time(),),
)
RESILIENT = Kind(
    "Resilient backpropagation (Rprop)",
    "resilient",
    "Rprop is an update: it says what is done with a gradient, not where the "
    "gradient comes from. Each weight has a step size of its own, which grows while "
    "the sign of its gradient stays, and shrinks when the sign changes.",
    "Δw(t) = −sgn(∂E/∂w(t)) · Δw(t−1)",
    "The tutorial's equation",
    "Only the sign of the gradient counts, and each weight has its own step.",
    "With a constant gradient, the steps of this equation alternate between −d and "
    "+d, so the weight does not move. The factors 1.2 and 0.5, by which step sizes "
    "grow and shrink, are missing. Mini-batches change signs at random, therefore "
    "Rprop is given all examples at once here.",
    "<code>updates.rprop</code> and its family: <code>rprop_plus</code>, "
    "<code>rprop_minus</code>, <code>irprop_plus</code>, <code>irprop_minus</code>; "
    "with constant steps <code>manhattan</code>",
    (diagrams.resilient(),),
)
TRUNCATED = Kind(
    "Truncated backpropagation through time",
    "truncated",
    "Errors travel back a fixed number of steps, the lookback, and then stop. What "
    "happened earlier receives no error, so a network cannot learn to remember it.",
    "δ_t = c_t + δ_{t+1} J_{t+1},   with δ_t = 0 before the lookback",
    "The equation of backpropagation through time, cut off",
    "Memory and time do not grow with the length of the sequence.",
    "The gradient is biased as soon as a memory is longer than the lookback.",
    "<code>gradients.truncated_bptt(step, loss, every=…, lookback=…)</code>",
    (diagrams.through_time(2),),
)
FORGETTING = Kind(
    "Forgetting past gradients, online",
    "forgetting",
    "This is the tutorial's meaning of “recurrent”, with a gradient after every year. "
    "RTRL gives the gradient of the current year's error, and the update adds the "
    "gradients of the years before, each multiplied once more by λ.",
    "Δw(n) = −η [ g(n) + λ g(n−1) + λ² g(n−2) + … ]",
    "The tutorial's equation with η on all terms, where g(n) is the gradient in year n",
    "The sum is kept in one array of the size of the parameters.",
    "The printed form, with η on the first term only, has to use a λ as small as 0.01 "
    "here, and is then close to gradient descent.",
    "<code>updates.forgetting(η, λ)</code>; as printed "
    "<code>updates.forgetting(η, λ, scale_past=False)</code>",
    (diagrams.forgetting(),),
)
FORWARD = Kind(
    "Forward in time: real-time recurrent learning",
    "forward-in-time",
    "RTRL computes the gradient of backpropagation through time without going back. "
    "It carries the influence M of every parameter on the state forwards, so a "
    "gradient is ready after every step.",
    "M_t = J_t M_{t−1} + I_t,   ∂ℓ_t/∂θ = c_t M_t",
    "The tutorial does not mention this kind",
    "The gradient is exact if the parameters do not change on the way, and nearly so "
    "if they change slowly.",
    "M has a number for each pair of a state unit and a parameter, so the cost grows "
    "steeply with the number of units.",
    "<code>gradients.rtrl</code>; over whole sequences "
    "<code>gradients.over_sequence(gradients.rtrl(step, loss))</code>",
    (diagrams.forward_in_time(),),
)
