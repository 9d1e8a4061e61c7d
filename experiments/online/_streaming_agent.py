"""An actor–critic that learns at every step: no replay, no batch, no second pass.

Two networks of the same form, the actor with policy π and the critic with value v, each
have a recurrent trace unit and a hidden layer. At each step, an online rule gives the
gradients of v(s) and of log π(a). With the reward r, the next state s′, the discount γ,
the trace decay λ and the entropy H of the policy, the updates are

    δ = r + γ v(s′) − v(s),  without v(s′) where the episode has terminated
    z_v ← γλ z_v + ∇v(s),    z_π ← γλ z_π + ∇(log π(a) + τ sign(δ) H)
    θ ← θ + α / max(1, M) δ z,    M = α κ max(|δ|, 1) ‖z‖₁

with a separate θ, z, α and κ for actor and critic. The factor 1 / max(1, M) bounds the
change of an output. The traces z are 0 at the begin of an episode. Each element of an
observation is normalised by its mean and variance so far.

References:
  Elsayed et al., "Streaming deep reinforcement learning finally works", 2024,
  arXiv:2410.14606 (the bound, which they call ObGD, the sign of δ, and normalised
  observations).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants import cells, gradients, updates
from bpvariants.types import OnlineRule, PyTree
from experiments.online._agent_worlds import World


class Settings(NamedTuple):
    """Settings of the agent; the numbers may be arrays, to run several settings."""

    actor_rate: Any = 1.0  # α of the actor
    critic_rate: Any = 1.0  # α of the critic
    decay: Any = 0.8  # λ of both traces
    discount: Any = 0.99  # γ
    entropy: Any = 0.01  # τ
    units: int = 16  # number of RTUs; each has two state variables
    hidden: int = 16  # number of units of the hidden layer
    min_radius: float = 0.9  # smallest and largest factor by which the state of a unit
    max_radius: float = 0.999  # decays per step, before learning
    max_angle: float = 0.02  # largest rotation of a unit per step, before learning
    actor_kappa: float = 1.0  # κ of the actor; the paper has 3
    critic_kappa: float = 2.0  # κ of the critic, as in the paper


class Record(NamedTuple):
    """What happened at each step of a run, [T]."""

    rewards: jax.Array  # not scaled
    terminated: jax.Array
    truncated: jax.Array
    values: jax.Array  # v(s), for scaled rewards
    next_values: jax.Array  # v(s′); s′ belongs to the same episode as s
    actions: jax.Array  # indices of the actions


class Statistics(NamedTuple):
    """Number, mean and sum of squared deviations of all observations so far."""

    number: jax.Array
    mean: jax.Array
    squares: jax.Array


def normalise(seen: Statistics, x: jax.Array) -> tuple[Statistics, jax.Array]:
    """Add an observation to the statistics, and scale it by them.

    Each element of an observation gets mean 0 and variance 1 over all steps so far. The
    first observation becomes 0, and so does an element that never changes.
    """
    number = seen.number + 1
    mean = seen.mean + (x - seen.mean) / number
    squares = seen.squares + (x - seen.mean) * (x - mean)
    variance = squares / jnp.maximum(number - 1, 1)
    scale = jax.lax.rsqrt(jnp.where(variance > 0, variance, 1.0) + 1e-8)
    return Statistics(number, mean, squares), (x - mean) * scale


class _State(NamedTuple):
    params: dict[str, PyTree]  # of actor and critic, as all dicts below
    memories: dict[str, Any]  # states of the online rules
    traces: dict[str, Any]
    world: PyTree
    begins: jax.Array  # [] bool: whether an episode begins
    x: jax.Array  # normalised observation of the state of the world
    seen: Statistics


def init_network(
    settings: Settings, inputs: int, outputs: int, key: jax.Array
) -> PyTree:
    """Draw the parameters of an actor or critic; its first outputs are all 0."""
    of_cell, of_hidden = jax.random.split(key)
    units, hidden = settings.units, settings.hidden
    width = 2 * units + inputs
    return {
        "cell": cells.rtu.init(
            of_cell,
            inputs,
            units,
            min_radius=settings.min_radius,
            max_radius=settings.max_radius,
            max_angle=settings.max_angle,
        ),
        "hidden": jax.random.normal(of_hidden, (width, hidden)) / width**0.5,
        "hidden_bias": jnp.zeros(hidden),
        "readout": jnp.zeros((hidden, outputs)),
        "bias": jnp.zeros(outputs),
    }


def init_agent(world: World, settings: Settings, key: jax.Array) -> dict[str, PyTree]:
    """Draw the parameters of an actor and a critic."""
    outputs = {"actor": world.actions, "critic": 1}
    keys = jax.random.split(key)
    return {
        name: init_network(settings, world.observations, count, own)
        for (name, count), own in zip(outputs.items(), keys, strict=True)
    }


def network_step(params: PyTree, carry: PyTree, x: jax.Array) -> tuple[PyTree, Any]:
    """Run one time step of an actor (output: logits) or of a critic (output: [v])."""
    carry, h = cells.rtu(params["cell"], carry, x)
    both = jnp.concatenate([h, x], axis=-1)
    h = jnp.tanh(both @ params["hidden"] + params["hidden_bias"])
    return carry, h @ params["readout"] + params["bias"]


def run(
    world: World,
    make_rule: Callable[..., OnlineRule],
    settings: Settings,
    steps: int,
    key: jax.Array,
    params: dict[str, PyTree] | None = None,
) -> tuple[Record, dict[str, PyTree]]:
    """Let an agent act and learn, in one scan.

    Args:
      world: the environment. After the end of an episode the next one begins.
      make_rule: (step, loss) -> online rule, for the gradients of both networks.
      settings: settings of the agent.
      steps: number T of steps.
      key: for the first parameters, the actions, and the begin of each episode.
      params: first parameters of "actor" and "critic"; by default, drawn by the key.

    Returns:
      The record of all steps, and the last parameters of actor and critic.
    """
    of_params, of_noise = jax.random.split(key)
    noise = jax.random.uniform(of_noise, (steps + 1, 1 + world.draws))
    scores = make_scores(settings.entropy)
    rules = {name: make_rule(network_step, score) for name, score in scores.items()}
    params = params or init_agent(world, settings, of_params)
    carry = cells.rtu.carry(params["critic"]["cell"])  # at the begin of an episode
    targets = {"actor": (jnp.array(0), jnp.array(0.0)), "critic": jnp.array(0.0)}
    first = world.begin(noise[0, 1:])
    x = world.observe(first)
    nothing = Statistics(jnp.array(0.0), jnp.zeros_like(x), jnp.zeros_like(x))
    seen, x = normalise(nothing, x)
    trace = updates.scale_by_forgetting(settings.discount * settings.decay)
    start = _State(
        params,
        {
            name: rules[name].init(params[name], carry, (x, targets[name]))
            for name in rules
        },
        {name: trace.init(params[name]) for name in rules},
        first,
        jnp.array(True),
        x,
        seen,
    )
    body = partial(_step, world, rules, trace, settings, carry)
    last, record = jax.lax.scan(body, start, noise[1:])
    return record, last.params


def _step(world, rules, trace, settings, initial, state: _State, noise):
    """Act once, and learn from what happens."""
    params, memories, begins = state.params, dict(state.memories), state.begins
    x = state.x
    carry = _where(begins, initial, memories["actor"].carry)
    _, logits = network_step(params["actor"], carry, x)
    action = sample(jax.nn.softmax(logits), noise[0])
    moved = world.step(state.world, action)
    update = lambda name, target: rules[name].update(
        params[name], memories[name], x, target, reset=begins
    )
    value, of_value, memories["critic"] = update("critic", jnp.array(0.0))
    seen, next_x = normalise(state.seen, world.observe(moved.state))
    _, (next_value,) = network_step(params["critic"], memories["critic"].carry, next_x)
    goes_on = jnp.where(moved.terminated, 0.0, settings.discount)
    delta = world.scale * moved.reward + goes_on * next_value - value
    _, of_policy, memories["actor"] = update("actor", (action, jnp.sign(delta)))
    slopes, new, traces = {"actor": of_policy, "critic": of_value}, {}, {}
    rates = {
        "actor": (settings.actor_rate, settings.actor_kappa),
        "critic": (settings.critic_rate, settings.critic_kappa),
    }
    for name, slope in slopes.items():
        kept = _where(begins, trace.init(params[name]), state.traces[name])
        z, traces[name] = trace.update(slope, kept)
        size = delta * bounded_rate(*rates[name], delta, z)
        new[name] = jax.tree.map(lambda w, z, size=size: w + size * z, params[name], z)
    ends = moved.terminated | moved.truncated
    after = _where(ends, world.begin(noise[1:]), moved.state)
    begun = normalise(seen, world.observe(after))
    seen, x = _where(ends, begun, (seen, next_x))
    flags = moved.terminated, moved.truncated
    record = Record(moved.reward, *flags, value, next_value, action)
    return _State(new, memories, traces, after, ends, x, seen), record


def bounded_rate(rate: Any, kappa: float, delta: jax.Array, trace: PyTree) -> Any:
    """Return α / max(1, M), with M = α κ max(|δ|, 1) ‖z‖₁ (ObGD)."""
    size = sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(trace))
    return rate / jnp.maximum(1.0, rate * kappa * jnp.maximum(jnp.abs(delta), 1) * size)


def sample(probabilities: jax.Array, noise: jax.Array) -> jax.Array:
    """Draw an action by its probabilities [n], from a uniform number in [0, 1)."""
    return jnp.sum(noise >= jnp.cumsum(probabilities)[:-1])


def make_scores(entropy: Any) -> dict[str, Callable]:
    """Return the functions (output, target) -> score whose gradients are traced."""
    return {
        "actor": partial(_policy_score, entropy),
        "critic": lambda y, _: y[..., 0],
    }


def _policy_score(entropy, logits, target):
    action, sign = target
    logs = jax.nn.log_softmax(logits)
    spread = -jnp.sum(jnp.exp(logs) * logs, axis=-1)
    return logs[action] + entropy * sign * spread


def _where(flag, a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(partial(jnp.where, flag), a, b)


def lambda_returns(record: Record, discount: float, decay: float) -> jax.Array:
    """Return the λ-returns G [T] of all steps, by one parallel scan.

        G_t = r_t + γ_t ((1 − λ_t) v(s′_t) + λ_t G_{t+1})

    γ_t is 0 where an episode terminates, and λ_t is 0 where an episode ends in any way.
    After the last step, v(s′) stands for the unknown return. Rewards are those of the
    record; pass them scaled if the values are for scaled rewards.
    """
    ends = record.terminated | record.truncated
    discounts = jnp.where(record.terminated, 0.0, discount)
    factors = discounts * jnp.where(ends, 0.0, decay)
    rest = record.rewards + (discounts - factors) * record.next_values

    def step(_, later, x):
        factor, rest = x
        new = factor * later + rest
        return new, new

    backwards = jax.tree.map(jnp.flip, (factors, rest))
    last = record.next_values[-1]
    (_, found), _ = gradients.parallel_unroll(
        step, (), last, backwards, method="linear"
    )
    return jnp.flip(found)
