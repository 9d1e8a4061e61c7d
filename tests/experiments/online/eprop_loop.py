"""E-prop for spiking neurons as a plain NumPy loop: the oracle of the study spiking.

The loop has the equations of Bellec et al. 2020, one line for each, and uses nothing of
bpvariants. Notation: v is the membrane potential, a the adaptation, A the threshold, z
the spikes, y the readout, ψ the surrogate derivative, z̄ (`trace`) the filtered
presynaptic spikes, ε (`eligibility`) the trace of the adaptation, e the eligibility
trace, ē (`slow`) the filtered eligibility trace, and L the learning signal.
"""

from typing import NamedTuple

import numpy as np


class Settings(NamedTuple):
    """Constants of a network; time constants are in steps."""

    tau: float
    tau_readout: float
    threshold: float
    gain: float  # ζ
    refractory: int = 0
    tau_adaptation: float = 2000.0
    beta: np.ndarray | float = 0.0
    softmax: bool = False
    regularisation: float = 300.0
    rate: float = 0.01


def sequence(weights, batch, s):
    """Run a batch of sequences; return the summed losses [B], and gradients [B, …]."""
    T, B, _ = batch.xs.shape
    W_in, W_rec, W_out, feedback = weights
    n = W_rec.shape[0]
    alpha, kappa = np.exp(-1 / s.tau), np.exp(-1 / s.tau_readout)
    rho = np.exp(-1 / s.tau_adaptation)
    v, a, z, filtered = (np.zeros((B, n)) for _ in range(4))
    left, counted = np.zeros((B, n), int), np.zeros((B, n))
    y, losses = np.zeros((B, W_out.shape[1])), np.zeros(B)
    trace = {"inputs": np.zeros((B, len(W_in))), "recurrent": np.zeros((B, n))}
    shapes = {name: (B, part.shape[1], n) for name, part in trace.items()}
    zeros = lambda: {name: np.zeros(shape) for name, shape in shapes.items()}
    eligibility, slow, total, grads = zeros(), zeros(), zeros(), zeros()
    grads["readout"] = np.zeros((B, *W_out.shape))
    for x, target, counts in zip(*batch, strict=True):
        trace["recurrent"] = alpha * trace["recurrent"] + s.gain * z
        trace["inputs"] = alpha * trace["inputs"] + s.gain * x
        v = alpha * v + s.gain * (z @ W_rec + x @ W_in) - s.threshold * z
        a = rho * a + z
        A = s.threshold + s.beta * a
        left = np.maximum(left - 1, 0)
        z = ((v >= A) & (left == 0)).astype(float)
        psi = 0.3 / s.threshold * np.maximum(0, 1 - np.abs(v - A) / s.threshold)
        psi[left > 0] = 0
        left[z > 0] = s.refractory
        counted += z
        y = kappa * y + (1 - kappa) * z @ W_out
        filtered = kappa * filtered + (1 - kappa) * z
        if s.softmax:
            p = np.exp(y - y.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            losses -= counts * np.sum(target * np.log(p), axis=1)
            error = counts * (p - target)
        else:
            losses += counts * np.sum((y - target) ** 2, axis=1) / 2
            error = counts * (y - target)
        L = error @ feedback
        for name, before in trace.items():
            before, psis = before[:, :, None], psi[:, None]
            e = psis * (before - s.beta * eligibility[name])
            eligibility[name] = (
                psis * before + (rho - psis * s.beta) * eligibility[name]
            )
            slow[name] = kappa * slow[name] + (1 - kappa) * e
            total[name] += e
            grads[name] += L[:, None] * slow[name]
        grads["readout"] += filtered[:, :, None] * error[:, None]
    force = s.regularisation / T * (counted / T - s.rate)
    for name in total:
        grads[name] += force[:, None] * total[name]
    grads["recurrent"][:, np.arange(n), np.arange(n)] = 0
    return losses, grads


def adam(params, grads, state, t, rate=5e-3):
    """Make a step of the first form of Adam, with ε outside of the bias correction."""
    corrected = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    for name, g in grads.items():
        m, v = state.get(name, (0, 0))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        state[name] = m, v
        params[name] = params[name] - corrected * m / (np.sqrt(v) + 1e-8)
    return params


def train(weights, batches, settings, updates=5):
    """Train a network; return the losses that the reference programs report."""
    params, losses, state = weights._asdict(), [], {}
    for t, batch in zip(range(1, updates + 1), batches, strict=False):
        found, grads = sequence(type(weights)(**params), batch, settings)
        if settings.softmax:
            counted = np.sum(batch.counts)
            losses.append(np.mean(found) / counted)
            grads = {name: np.mean(g, 0) / counted for name, g in grads.items()}
            params = adam(params, grads, state, t)
        else:
            losses.append(np.sum(found))
            grads = {name: np.sum(g, 0) for name, g in grads.items()}
            params |= {name: params[name] - 1e-4 * g for name, g in grads.items()}
    return losses


def regression_settings():
    return Settings(30.0, 30.0, 0.03, 1 - np.exp(-1 / 30))


def evidence_settings(units=100):
    beta = 1.7 * (1 - np.exp(-1 / 2000)) / (1 - np.exp(-1 / 20))
    betas = np.where(np.arange(units) < units // 2, 0, beta)
    return Settings(20.0, 20.0, 0.6, 1.0, 5, 2000.0, betas, True)
