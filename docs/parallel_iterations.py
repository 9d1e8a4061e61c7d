"""Draw docs/images/parallel_iterations.svg: iterations against the Lyapunov exponent.

`python docs/parallel_iterations.py` runs Newton's method of `parallel_unroll` on 50
random networks, from strongly forgetting to chaotic, and draws the number of iterations
against the exponent that a short run of the network estimates. It prints, for each
network, also the iterations that `method="auto"` would predict, and how long
`method="auto"` takes relative to `unroll` on this machine.

`python docs/parallel_iterations.py --times 10000 100000` is for a GPU or TPU: it times
`method="auto"`, `method="newton"` and `unroll` in turn at these numbers of time steps.
"""

import functools
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from bpvariants import cells, gradients
from bpvariants.gradients.through_time import _parallel_choice

PICTURE = pathlib.Path(__file__).parent / "images" / "parallel_iterations.svg"
LENGTH, UNITS, INPUTS, NETWORKS = 1000, 3, 2, 50
GAINS = (0.3, 6.0)  # smallest and largest standard deviation of the weights, times √n
KINDS = ("tanh", "gru", "lstm")
METHOD = gradients.newton(tol=1e-5, max_steps=LENGTH)
ROUNDS = 15


def network(index: int, length: int = LENGTH):
    """Return a random cell with its params, carry and inputs; the gain grows."""
    cell = getattr(cells, KINDS[index % len(KINDS)])
    low, high = GAINS
    gain = low * (high / low) ** (index / (NETWORKS - 1))
    keys = jax.random.split(jax.random.key(index))
    params = cell.init(keys[0], INPUTS, UNITS)
    params = params | {"recurrent": gain * params["recurrent"]}
    xs = jax.random.normal(keys[1], (length, INPUTS))
    return cell, params, cell.carry(params), xs


@functools.cache
def measurement(cell):
    """Return a compiled function from params, carry and xs to λ and Newton's info."""

    def measure(params, carry, xs):
        run = lambda h, x: cell(params, h, x)
        exponent = _parallel_choice.largest_exponent(run, carry, (xs,), 0)
        info = gradients.parallel_unroll(cell, params, carry, xs, method=METHOD)[1]
        return exponent, info.steps, info.converged

    return jax.jit(measure)


def measure(index: int) -> tuple[str, float, int, bool]:
    """Return kind, exponent, number of iterations, and whether Newton converged."""
    cell, *arguments = network(index)
    found = measurement(cell)(*arguments)
    return cell.__name__, *(value.item() for value in found)


def ratio(index: int, length: int, method) -> float:
    """Return the median time of a parallel_unroll, in turns, relative to unroll."""
    cell, *arguments = network(index, length)
    runs = [
        jax.jit(lambda *args: gradients.unroll(cell, *args)),
        jax.jit(lambda *args: gradients.parallel_unroll(cell, *args, method=method)[0]),
    ]
    seconds = [[], []]
    for round_number in range(ROUNDS + 1):
        for run, times in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            if round_number:  # the first round compiles
                times.append(time.perf_counter() - start)
    theirs, ours = map(statistics.median, seconds)
    return ours / theirs


def draw(rows) -> None:
    """Write the picture."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    colours = "tab:blue", "tab:orange", "tab:green"
    for kind, colour in zip(KINDS, colours, strict=True):
        for converged, marker in ((True, "o"), (False, "x")):
            points = [row[1:3] for row in rows if (row[0], row[3]) == (kind, converged)]
            label = kind if converged else None
            axes.plot(*zip(*points, strict=True) if points else ([], []), marker,
                      color=colour, label=label)  # fmt: skip
    axes.plot([], [], "kx", label="diverged, so run step by step")
    span = jnp.linspace(min(row[1] for row in rows), _parallel_choice.LIMIT, 200)
    bound = _parallel_choice.predicted_iterations(span)
    axes.plot(span, bound, "k--", label='predicted by method="auto"')
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set(
        xlabel="largest Lyapunov exponent λ, from 64 steps",
        ylabel=f"iterations of Newton's method, T = {LENGTH}",
        yscale="log", ylim=(0.7, 2 * LENGTH),
    )  # fmt: skip
    axes.legend()
    figure.savefig(PICTURE, metadata={"Date": None})


def main(arguments: list[str]) -> None:
    """Measure, print and draw; or time long sequences, after `--times`."""
    if arguments[:1] == ["--times"]:
        for length in map(int, arguments[1:]):
            for index in (0, 1, 2, NETWORKS - 1):
                name = network(index)[0].__name__
                for method in ("auto", "newton"):
                    share = ratio(index, length, method)
                    print(f"T {length} {name} {index}: {method} / unroll {share:.3f}")
        return
    rows = [measure(index) for index in range(NETWORKS)]
    for row in sorted(rows, key=lambda row: row[1]):
        predicted = _parallel_choice.predicted_iterations(row[1]).item()
        print(f"{row[0]:5} λ {row[1]:+.3f}: {row[2]:4} iterations, at most "
              f"{predicted:.0f} predicted, converged {row[3]}", flush=True)  # fmt: skip
    for index in (0, 1, 2, NETWORKS - 1):
        share = ratio(index, 10_000, "auto")
        print(f"auto / unroll, network {index}, T 10000: {share:.3f}")
    draw(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
