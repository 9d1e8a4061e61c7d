"""One Rprop step on four million parameters, against optax."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import optax

from bpvariants import updates
from experiments.benchmarks._timing import Measured, race

SIZE = 4_000_000


def rprop(repeats: int) -> Iterator[Measured]:
    """Time a step whose state is donated, as in a training loop."""
    optimizers = {
        "updates.rprop": updates.rprop(0.1),
        "optax.rprop": optax.rprop(0.1),
        "updates.rprop_plus": updates.rprop_plus(0.1),
        "updates.rprop_minus": updates.rprop_minus(0.1),
        "updates.irprop_plus": updates.irprop_plus(0.1),
        "updates.manhattan": updates.manhattan(0.1),
        "updates.forgetting": updates.forgetting(0.1, 0.9),
        "optax.sgd, momentum": optax.sgd(0.1, momentum=0.9),
        "optax.adam": optax.adam(0.1),
    }
    grads = jax.random.normal(jax.random.key(0), (SIZE,))

    def entrant(optimizer):
        optimizer = optax.with_extra_args_support(optimizer)

        def step(params_and_state, grads):
            params, state = params_and_state
            change, state = optimizer.update(grads, state, params, value=0.0)
            return optax.apply_updates(params, change), state

        params = jnp.zeros(SIZE)
        return step, ((params, optimizer.init(params)), grads)

    entrants = {name: entrant(optimizer) for name, optimizer in optimizers.items()}
    group = "step, 4M float32 parameters"
    yield from race(group, entrants, repeats=repeats, donate=True)
