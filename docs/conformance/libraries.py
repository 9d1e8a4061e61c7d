"""Libraries of optimisers, as run.py asks them: each function plays one trace.

    python docs/conformance/run.py docs.conformance.libraries:torch_rprop

optax and torch have one Rprop each, and do not say which variant. They play the traces
of all variants, so that the traces tell which variant they are.
"""

from typing import Any

import numpy as np

Rows = list[list[float]]


def bpvariants_rprop(trace: dict[str, Any]) -> Rows | None:
    """Play a trace by the update of `bpvariants.updates` that has the rule's name."""
    from bpvariants import updates

    if trace["kind"] == "library":
        return None
    made = getattr(updates, trace["rule"])
    if trace["rule"] == "manhattan":
        return _by_optax(made(trace["settings"]["first_step"]), trace)
    return _by_optax(made(**_settings(trace)), trace)


def optax_rprop(trace: dict[str, Any]) -> Rows:
    """Play a trace by optax.rprop."""
    import optax

    return _by_optax(optax.rprop(**_settings(trace)), trace)


def torch_rprop(trace: dict[str, Any]) -> Rows:
    """Play a trace by torch.optim.Rprop."""
    import torch

    settings = trace["settings"]
    weights = torch.zeros(len(trace["grads"]), dtype=getattr(torch, trace["dtype"]))
    weights.requires_grad_()
    optimizer = torch.optim.Rprop(
        [weights],
        lr=settings["first_step"],
        etas=(settings["eta_minus"], settings["eta_plus"]),
        step_sizes=(settings["min_step"], settings["max_step"]),
    )
    steps = []
    for grads in zip(*trace["grads"], strict=True):
        with torch.no_grad():
            weights.zero_()  # so that a change is not rounded to the weight's precision
        weights.grad = torch.tensor(grads, dtype=weights.dtype)
        optimizer.step()
        steps.append(weights.tolist())
    return _rows(steps)


def _settings(trace):
    settings = trace["settings"]
    return {
        "learning_rate": settings["first_step"],
        "eta_minus": settings["eta_minus"],
        "eta_plus": settings["eta_plus"],
        "min_step_size": settings["min_step"],
        "max_step_size": settings["max_step"],
    }


def _by_optax(optimizer, trace):
    import jax
    import jax.numpy as jnp
    import optax

    with jax.enable_x64(True):
        optimizer = optax.with_extra_args_support(optimizer)
        columns = np.asarray(trace["grads"], trace["dtype"]).T
        values = trace.get("values", [0.0] * len(columns))
        state, steps = optimizer.init(jnp.zeros_like(columns[0])), []
        for grads, value in zip(columns, values, strict=True):
            grads, value = jnp.asarray(grads), jnp.asarray(value)
            step, state = optimizer.update(grads, state, value=value)
            steps.append(step.tolist())
    return _rows(steps)


def _rows(columns):
    return [list(row) for row in zip(*columns, strict=True)]
