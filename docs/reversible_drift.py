"""Draw docs/images/reversible_drift.svg: the error of reversible gradients.

`python docs/reversible_drift.py` prints a table, and draws the relative error of the
gradient of `gradients.adjoints.reversible` against the number of steps, for several β.
The reference is the gradient of the same iteration by a scan, in float64. The network
has 32 units, tanh, and a weight matrix of spectral norm 0.9. The gradient by a scan in
float32 is drawn, too: its error is the rounding of the forward and backward pass.

`python docs/reversible_drift.py --times` prints how long the gradients by
`reversible` take relative to a scan, in turns, as the median of 15 rounds.
"""

import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

matplotlib.use("svg")
import matplotlib.pyplot as plt

from bpvariants import gradients

PICTURE = pathlib.Path(__file__).parent / "images" / "reversible_drift.svg"
BETAS, STEPS = (0.25, 0.5, 0.75), (10, 30, 100, 300, 1000, 3000, 10_000)
WAYS = "scan", "floating", "fixed_point"


def network(dtype, units: int = 32, batch: int = 4):
    """Return params, init and x of a network that settles."""
    draw = np.random.RandomState(0).randn
    w = draw(units, units)
    tree = 0.9 * w / np.linalg.norm(w, 2), 0.1 * draw(batch, units), draw(batch, units)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def settle(w, h, x):
    """Return the new state of the network."""
    return jnp.tanh(h @ w + x)


def gradient(way: str, beta: float, steps: int):
    """Return the compiled gradient with respect to params."""

    def scan(w, init, x):
        def step(states, _):
            y, z = states
            y = (1 - beta) * y + beta * settle(w, z, x)
            return (y, (1 - beta) * z + beta * settle(w, y, x)), None

        return jax.lax.scan(step, (init, init), length=steps)[0][1]

    def ours(w, init, x):
        adjoint = gradients.adjoints.reversible(beta, steps, way)
        return gradients.fixed_point(
            settle, w, init, x, adjoint=adjoint, batch_ndim=1, on_failure="truncate"
        )[0]

    solve = scan if way == "scan" else ours
    return jax.jit(jax.grad(lambda *args: jnp.sum(solve(*args) ** 2)))


def error(way: str, beta: float, steps: int) -> float:
    """Return the relative error of the gradient in float32."""
    want = gradient("scan", beta, steps)(*network(jnp.float64))
    got = gradient(way, beta, steps)(*network(jnp.float32)).astype(jnp.float64)
    return (jnp.linalg.norm(got - want) / jnp.linalg.norm(want)).item()


def draw(errors) -> None:
    """Write the picture."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for beta, colour in zip(
        BETAS, ("tab:blue", "tab:orange", "tab:green"), strict=True
    ):
        for way, line in zip(WAYS, (":", "-", "--"), strict=True):
            axes.plot(STEPS, errors[beta, way], line, color=colour, marker=".",
                      label=f"β {beta}, {way}")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="steps N",
             ylabel="relative error of the gradient")  # fmt: skip
    axes.legend(ncols=3, fontsize="x-small")
    figure.savefig(PICTURE, metadata={"Date": None})


def times(rounds: int = 15, steps: int = 30) -> None:
    """Print the median times relative to a scan."""
    arguments = network(jnp.float32, 128, 32)
    runs = {way: gradient(way, 0.5, steps) for way in WAYS}
    seconds = {way: [] for way in WAYS}
    for round_number in range(rounds + 1):
        for way, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            if round_number:  # the first round compiles
                seconds[way].append(time.perf_counter() - start)
    medians = {way: statistics.median(each) for way, each in seconds.items()}
    for way in WAYS:
        print(f"{way}: {medians[way]:.4f} s, {medians[way] / medians['scan']:.2f}")


def main(arguments: list[str]) -> None:
    """Print and draw errors; or print times, after `--times`."""
    if arguments[:1] == ["--times"]:
        times()
        return
    jax.config.update("jax_enable_x64", True)
    errors = {}
    for beta in BETAS:
        for way in WAYS:
            errors[beta, way] = [error(way, beta, steps) for steps in STEPS]
            row = " ".join(f"{each:.1e}" for each in errors[beta, way])
            print(f"beta {beta} {way}: {row}", flush=True)
    draw(errors)


if __name__ == "__main__":
    main(sys.argv[1:])
