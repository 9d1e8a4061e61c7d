"""Training of a network on Yin-Yang by one rule, as one run of a sweep.

A feed-forward network has hidden layers of relu. The network that settles has one
hidden layer h with connections within the layer:

    h = tanh(x U + h W + b),    logits = h V + c

All weights and biases of a layer are drawn from U(−1/√n, 1/√n), where n is the number
of inputs of the layer. W is projected to a spectral norm of at most LIMIT after each
update, so that h settles. Equilibrium propagation needs symmetric connections, so its
network has (W + Wᵀ)/2 in place of W.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bpvariants import gradients, updates
from bpvariants.types import PyTree
from experiments import data

BATCH = 20
LIMIT = 0.5  # largest spectral norm of the connections within the hidden layer
ALIGNMENT = ("fa", "dfa", "usf", "brsf", "frsf")
SETTLING = ("rbp", "jfb", "ep")  # rules of the network that settles
RULES = ("backprop", "frozen", "linear", *ALIGNMENT, *SETTLING)
SOLVER = gradients.solvers.relaxation(1.0, tol=1e-3, max_steps=30)
NUDGING: dict[str, Any] = {"beta": 0.1, "free_steps": 30, "nudged_steps": 15}
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


class Setting(NamedTuple):
    """Settings of a run; in a sweep, only the learning rate is traced."""

    rule: str
    hidden: tuple[int, ...]
    rate: float


class Network(NamedTuple):
    """A network with the rule that trains it.

    Attributes:
      init: key -> params.
      logits: (params, inputs [N, 4]) -> logits [N, 3].
      rule: (params, feedback, inputs, classes, key) -> (mean loss, grads).
      exact: like rule, but with the exact gradient.
      feedback: (key, params) -> constant feedback weights, or None.
      update: learning rate -> the update, an optax transformation.
      lower: params -> the weights below the output layer that `rule` trains, or None.
    """

    init: Callable[[jax.Array], PyTree]
    logits: Callable[[PyTree, jax.Array], jax.Array]
    rule: Callable[..., tuple[jax.Array, PyTree]]
    exact: Callable[..., tuple[jax.Array, PyTree]]
    feedback: Callable[[jax.Array, PyTree], Any]
    update: Callable[[Any], optax.GradientTransformation]
    lower: Callable[[PyTree], PyTree]


def make_run(setting: Setting, key: jax.Array) -> tuple:
    """Return (state, advance, evaluate) of one run, for `training.sweep`.

    One call of `advance` is one epoch: an update for each batch of the training points,
    in a new random order. Runs with the same key see the same batches, whatever their
    rule. Runs of networks of the same kind and size also have equal initial weights.
    """
    network = make_network(setting.rule, setting.hidden)
    of_params, of_feedback, of_order, of_rule = jax.random.split(key, 4)
    params = network.init(of_params)
    feedback = network.feedback(of_feedback, params)
    update = network.update(setting.rate)
    train, validation, test = (
        tuple(map(jnp.asarray, part)) for part in data.yin_yang()
    )

    def advance(state, epoch):
        order = jax.random.permutation(
            jax.random.fold_in(of_order, epoch), len(train[1])
        )
        # One gather for all batches of an epoch is faster than one for each batch.
        batches = [part[order].reshape(-1, BATCH, *part.shape[1:]) for part in train]
        keys = jax.random.split(jax.random.fold_in(of_rule, epoch), len(order) // BATCH)

        def step(state, given):
            (params, opt_state), (inputs, classes, key) = state, given
            loss, grads = network.rule(params, feedback, inputs, classes, key)
            change, opt_state = update.update(grads, opt_state, params)
            return (optax.apply_updates(params, change), opt_state), loss

        state, losses = jax.lax.scan(step, state, (*batches, keys))
        score = accuracy(network, state[0], *validation)
        return state, {"loss": jnp.mean(losses), "validation": score}

    def evaluate(state):
        params, _ = state
        inputs, classes = train
        return {
            "accuracy": accuracy(network, params, *test),
            "angle": _angle(network, params, feedback, inputs, classes, of_rule),
        }

    return (params, update.init(params)), advance, evaluate


def accuracy(
    network: Network, params: PyTree, inputs: jax.Array, classes: jax.Array
) -> jax.Array:
    """Return the share of inputs in % whose class has the largest logit."""
    found = jnp.argmax(network.logits(params, inputs), axis=-1)
    return 100 * jnp.mean(found == classes, dtype=jnp.float32)


def make_network(rule: str, hidden: tuple[int, ...]) -> Network:
    """Return the network that a rule trains, with the rule.

    Args:
      rule: a name in RULES.
      hidden: numbers of units of the hidden layers; a network that settles has one
        hidden layer. "linear" has none.
    """
    if rule in SETTLING:
        return _settling(rule, *hidden)
    return _feed_forward(rule, () if rule == "linear" else hidden)


def _feed_forward(rule: str, hidden: tuple[int, ...]) -> Network:
    affine = lambda params, y: y @ params["w"] + params["b"]
    layers = [(affine, jax.nn.relu) for _ in hidden] + [(affine, lambda s: s)]
    sizes = (4, *hidden, 3)
    backprop = gradients.backprop(layers, cross_entropy)

    def init(key):
        keys = jax.random.split(key, len(layers))
        parts = zip(keys, sizes[:-1], sizes[1:], strict=True)
        return tuple(_draw(*part) for part in parts)

    def exact(params, feedback, inputs, classes, key):
        (loss, _), grads = backprop(params, inputs, classes)
        return loss, grads

    def logits(params, y):
        for (s, activation), part in zip(layers, params, strict=True):
            y = jnp.asarray(activation(s(part, y)))
        return y

    def frozen(*arguments):
        loss, grads = exact(*arguments)
        return loss, (*jax.tree.map(jnp.zeros_like, grads[:-1]), grads[-1])

    lower = lambda params: [part["w"] for part in params[:-1]]
    network = Network(init, logits, exact, exact, lambda *_: None, optax.adam, lower)
    if rule == "frozen":
        return network._replace(rule=frozen)
    if rule not in ALIGNMENT:
        return network
    kind: Any = rule
    aligned = gradients.feedback_alignment(layers, cross_entropy, kind=kind)

    def feedback(key, params):
        like = jnp.zeros((1, 4))
        return gradients.alignment_weights(key, layers, params, like, kind=kind)

    def call(params, feedback, inputs, classes, key):
        given = {"feedback": feedback, "key": key if rule == "brsf" else None}
        (loss, _), grads = aligned(params, inputs, classes, **given)
        return loss, grads

    return network._replace(rule=call, feedback=feedback)


def _settling(rule: str, units: int) -> Network:
    symmetric = lambda w: (w + w.T) / 2
    within = symmetric if rule == "ep" else lambda w: w
    drive = lambda params, x: x @ params["in"]["w"] + params["in"]["b"]
    f = lambda params, h, x: jnp.tanh(drive(params, x) + h @ within(params["within"]))
    read = lambda params, h: h @ params["out"]["w"] + params["out"]["b"]
    start = lambda x: jnp.zeros((len(x), units))

    def init(key):
        keys = jax.random.split(key, 3)
        parts = {"in": _draw(keys[0], 4, units), "out": _draw(keys[2], units, 3)}
        return parts | {"within": _draw(keys[1], units, units)["w"]}

    def through(adjoint):
        by = gradients.recurrent_backprop(
            f, cross_entropy, readout=read, solver=SOLVER, adjoint=adjoint,
            on_failure="ignore",
        )  # fmt: skip

        def call(params, feedback, inputs, classes, key):
            (loss, _), grads = by(params, start(inputs), inputs, classes)
            return loss, grads

        return call

    def by_nudging():
        def primitive(params, h, x):
            own = jnp.sum(h * (h @ within(params["within"])), axis=-1) / 2
            return own + jnp.sum(h * drive(params, x), axis=-1)

        by = gradients.equilibrium_propagation(
            primitive, cross_entropy, activation=jnp.tanh, readout=read, **NUDGING
        )

        def call(params, feedback, inputs, classes, key):
            (loss, _), grads = by(params, start(inputs), inputs, classes)
            return loss, grads

        return call

    def logits(params, x):
        options = {"solver": SOLVER, "on_failure": "ignore", "batch_ndim": 1}
        h, _ = gradients.fixed_point(f, params, start(x), x, **options)
        return read(params, h)

    def update(rate):
        only = {"in": {"w": False, "b": False}, "within": True}
        only |= {"out": {"w": False, "b": False}}
        limited = updates.project_spectral_norm(LIMIT, steps=2)
        return optax.chain(optax.adam(rate), optax.masked(limited, only))

    exact = through(None)
    by_jfb = through(gradients.adjoints.jfb())
    trained = {"rbp": exact, "jfb": by_jfb, "ep": by_nudging()}[rule]
    lower = lambda params: [params["in"]["w"], params["within"]]
    return Network(init, logits, trained, exact, lambda *_: None, update, lower)


def _draw(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    """Draw the weights and biases of a layer."""
    bound = 1 / inputs**0.5
    draw = lambda key, *shape: jax.random.uniform(
        key, shape, minval=-bound, maxval=bound
    )
    of_weights, of_biases = jax.random.split(key)
    return {"w": draw(of_weights, inputs, outputs), "b": draw(of_biases, outputs)}


def _angle(network, params, feedback, inputs, classes, key) -> jax.Array:
    """Return the angle in degrees between the rule's and the exact gradient.

    The gradients are those for the weights below the output layer, over all training
    points. The angle is NaN if there are no such weights, or if they are not trained.
    """
    pair = []
    for rule in (network.rule, network.exact):
        _, grads = rule(params, feedback, inputs, classes, key)
        parts = [jnp.ravel(leaf) for leaf in network.lower(grads)]
        pair.append(jnp.concatenate([*parts, jnp.zeros(1)]))
    a, b = (each / jnp.linalg.norm(each) for each in pair)
    half = jnp.arctan2(jnp.linalg.norm(a - b), jnp.linalg.norm(a + b))
    return jnp.degrees(2 * half)
