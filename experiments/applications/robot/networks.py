"""Sensor frames and networks of `robot`.

    mlp              h_t = tanh(U x_t + b)       without a state
    tanh, gru, lstm  h_t = cell(θ, h_{t−1}, x_t)
    y_t = V h_t + c

x_t are the inputs, h_t are the values of the units, and y_t are the logits of actions;
U, b, V, c and θ are parameters. The inputs "sensors" are all 24 distances. The inputs
"two" are the distances to the front and to the left, as in the papers about the robot;
each distance is the minimum over some sensors.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import data
from experiments.networks import recurrent
from experiments.networks.cells import DENSE
from experiments.networks.recurrent import Network, Window

TEST, VALIDATION = 4092, 2728  # first frames of the fourth and third quarter
FRONT, LEFT = slice(10, 15), slice(17, 20)
INPUTS = {
    "sensors": lambda readings: readings,
    "two": lambda readings: np.stack(
        [readings[:, FRONT].min(axis=1), readings[:, LEFT].min(axis=1)], axis=1
    ),
}
STATIC = "mlp"
KINDS = (STATIC, *DENSE)


class Frames(NamedTuple):
    """Sensor frames in order of time; the test part begins at index `first`."""

    xs: np.ndarray  # [N, D] inputs, standardised over the training frames
    actions: np.ndarray  # [N] index of the robot's action
    first: int  # index of the first test frame

    def score_window(self) -> Window:
        """Return all frames as one stream; only frames of the test part are scored."""
        weights = np.arange(len(self.xs)) >= self.first
        xs, actions = self.xs[:, None], self.actions[:, None]
        return Window(xs, actions, weights[:, None], None, None)


def load(inputs: str, tune: bool) -> Frames:
    """Load the sensor frames, with one kind of inputs.

    Args:
      inputs: one of :data:`INPUTS`.
      tune: if True, leave out the test frames, and use the last third of the training
        frames as the test part.
    """
    found = data.wall_following()
    first, end = (VALIDATION, TEST) if tune else (TEST, len(found.actions))
    xs = INPUTS[inputs](found.readings)
    xs = (xs - xs[:first].mean(axis=0)) / xs[:first].std(axis=0)
    return Frames(xs[:end].astype(np.float32), found.actions[:end], first)


def read_name(name: str) -> tuple[str, int]:
    """Parse a name such as gru-8: return the kind, and the number of units.

    Example:
      >>> read_name("gru-8")
      ('gru', 8)
    """
    kind, dash, units = name.partition("-")
    if kind not in KINDS or not dash or not units.isdecimal() or int(units) < 1:
        raise ValueError(
            f"networks must be a kind, a dash and a number of units, such as gru-8; "
            f"kinds are {', '.join(KINDS)}; got {name!r}."
        )
    return kind, int(units)


def make_network(name: str, inputs: int) -> Network:
    """Return the network with a name such as gru-8, for `inputs` inputs."""
    kind, units = read_name(name)
    classes = len(data.ACTIONS)
    loss = optax.softmax_cross_entropy_with_integer_labels
    if kind == STATIC:
        init = lambda key: _init_static(key, inputs, units, classes)
        zeros = lambda batch: jnp.zeros(batch)
        return Network(_static, loss, init, zeros, lambda carry: carry, units)
    init = lambda key: recurrent.init(key, kind, inputs, units, classes)
    return recurrent.make_network(kind, units, lambda _, x: x, loss, init)


def _init_static(key: jax.Array, inputs: int, units: int, outputs: int) -> Any:
    of_hidden, of_readout = jax.random.split(key)
    return {
        "hidden": jax.random.normal(of_hidden, (inputs, units)) / inputs**0.5,
        "hidden_bias": jnp.zeros(units),
        "readout": jax.random.normal(of_readout, (units, outputs)) / units**0.5,
        "readout_bias": jnp.zeros(outputs),
    }


def _static(params, carry, x):
    x, kept = x
    h = jnp.tanh(x @ params["hidden"] + params["hidden_bias"])
    h = h if kept is None else h * kept
    return carry, h @ params["readout"] + params["readout_bias"]


def say(network: Network, params: Any, window: Window) -> np.ndarray:
    """Return the actions that each seed's network predicts for scored frames.

    The actions are [seeds, N] for N scored frames.
    """
    counts = np.asarray(window.weights)[:, 0]

    def of_one(params):
        step = lambda carry, x: network.step(params, carry, (x, None))
        _, ys = jax.lax.scan(step, network.zeros((1,)), jnp.asarray(window.xs))
        return jnp.argmax(ys[:, 0], axis=-1)

    return np.asarray(jax.jit(jax.vmap(of_one))(params))[:, counts]
