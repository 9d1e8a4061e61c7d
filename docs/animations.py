"""Make the four animations of the README and of the notebooks.

`python -m docs.animations` writes all animations to docs/images/animations;
`python -m docs.animations rprop` makes this one again. It needs the extra
`experiments`. An animation takes at most 5 seconds and has at most 1 MB. All numbers
that the animations show are computed by the library.
"""

import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from bpvariants import gradients, updates
from experiments import report
from experiments.report import COLOURS, rule_style, update_style

IMAGES = pathlib.Path(__file__).parent / "images" / "animations"
SECONDS, BYTES, COLOURS_KEPT = 5.0, 1_000_000, 64

Frames = Iterator[Figure]  # the same figure again and again, drawn anew


def errors() -> Frames:
    """Draw errors that go back step by step through an unrolled sequence, by lag."""
    steps, lookback = 13, 5
    norms = _error_norms(steps)
    figure = Figure(figsize=(8, 4.3), layout="constrained")
    rows = figure.subplots(3, 1, height_ratios=[1, 1, 1.5])
    names = {"bptt": steps - 1, f"truncated_bptt, lookback {lookback}": lookback - 1}
    for lag in range(steps):
        for axis, (name, reach) in zip(rows, names.items(), strict=False):
            axis.clear()
            _draw_chain(axis, name, norms, min(lag, reach), stopped=lag > reach)
        axis = rows[2]
        axis.clear()
        report.plain(axis)
        for (name, reach), shift in zip(names.items(), (-0.2, 0.2), strict=True):
            lags = np.arange(min(lag, reach) + 1)
            colour = rule_style(name)["color"]
            axis.bar(lags + shift, norms[lags], 0.38, color=colour, label=name)
        axis.set(xlim=(steps - 0.4, -0.6), ylim=(0, 1.05 * norms.max()))
        axis.set(xticks=range(steps), xlabel="lag (steps back from the loss)")
        axis.set_ylabel("size of the error")
        axis.legend(loc="upper left", frameon=False, fontsize=9)
        figure.suptitle(f"lag {lag}: the error of the last loss goes back in time")
        yield figure


def _error_norms(steps: int) -> np.ndarray:
    """Return the norm of ∂ℓ_T/∂h_{T−k} for each lag k, in a small tanh network."""
    keys = jax.random.split(jax.random.key(3), 3)
    units, size = 8, 2
    matrix = 0.95 * jax.nn.initializers.orthogonal()(keys[0], (units, units))
    inputs = jax.random.normal(keys[1], (size, units))
    xs = 0.5 * jax.random.normal(keys[2], (steps, size))

    def loss(pushes):  # pushes[t] is added to the state of step t
        def step(params, h, both):
            x, push = both
            h = jnp.tanh(h @ matrix + x @ inputs) + push
            return h, h

        carry, _ = gradients.unroll(step, (), jnp.zeros(units), (xs, pushes))
        return 0.5 * jnp.sum((carry - 0.5) ** 2)

    at_states = jax.grad(loss)(jnp.zeros((steps, units)))
    return np.asarray(jnp.linalg.norm(at_states, axis=1))[::-1]


def _draw_chain(
    axis: Axes, name: str, norms: np.ndarray, lag: int, *, stopped: bool
) -> None:
    """Draw the states h_1 … h_T, and the errors that have reached them so far."""
    count = len(norms)
    axis.set_axis_off()
    axis.set(xlim=(-0.6, count + 0.6), ylim=(-0.75, 0.85))
    colour = rule_style(name)["color"]
    for t in range(count):
        k = count - 1 - t
        reached = k <= lag
        share = 0.15 + 0.85 * norms[k] / norms.max() if reached else 0.0
        axis.scatter(
            t, 0, s=330, color=report.shade(colour, share), edgecolors="#444444",
            zorder=3,
        )  # fmt: skip
        ink = "white" if reached and share > 0.5 else "#222222"
        axis.text(t, 0, f"h{t + 1}", ha="center", va="center", color=ink, fontsize=8,
                  zorder=4)  # fmt: skip
        if t:
            axis.plot([t - 1, t], [0, 0], color="#bbbbbb", zorder=1)
        if 0 < k <= lag:
            axis.annotate(
                "", (t + 0.12, 0.33), (t + 0.88, 0.33),
                arrowprops={"arrowstyle": "->", "color": COLOURS[1]},
            )  # fmt: skip
    axis.text(count, 0, "loss", ha="center", va="center", color=COLOURS[1])
    axis.text(-0.5, 0.72, name, ha="left", va="center", fontsize=10, color="#222222")
    if stopped:
        at = count - 1 - lag - 0.5
        axis.plot([at, at], [-0.45, 0.5], color=COLOURS[1], linewidth=2)
        axis.text(at, -0.62, "stops here", ha="center", va="center", fontsize=9,
                  color=COLOURS[1])  # fmt: skip


def relaxation() -> Frames:
    """Draw a state that settles, and then the adjoint that settles at it."""
    count, units = 22, 6
    states, adjoints, away = _settling(count, units)
    figure = Figure(figsize=(8, 4.3), layout="constrained")
    (first, second), (third, fourth) = figure.subplots(2, 2, sharex=True)
    for frame in range(2 * count):
        done = min(frame, count - 1), frame - count
        for axis, path, last, title, key in (
            (first, states, done[0], "state: h ← f(h)", 0),
            (third, adjoints, done[1], "adjoint: z ← Jᵀz + ∂loss/∂h", 1),
        ):
            axis.clear()
            report.plain(axis)
            for i in range(units):
                shade = report.shade(COLOURS[2 if key == 0 else 1], 0.4 + 0.1 * i)
                axis.plot(path[: max(last + 1, 0), i], color=shade, linewidth=1.6)
                if last >= 0:
                    axis.plot(last, path[last, i], "o", color=shade, markersize=4)
            low, high = path.min(), path.max()
            margin = 0.08 * (high - low)
            axis.set(xlim=(-0.5, count), ylim=(low - margin, high + margin))
            axis.set_title(title, fontsize=11)
            right = second if key == 0 else fourth
            right.clear()
            report.plain(right)
            right.set(xlim=(-0.5, count), ylim=(min(away[key]) / 2, 2 * max(away[key])))
            colour = COLOURS[2 if key == 0 else 1]
            right.plot(away[key][: max(last + 1, 0)], "o-", color=colour, ms=3)
            right.set_title("change of an iteration", fontsize=11)
            report.log_ticks(right)
        for axis in (third, fourth):
            axis.set_xlabel("iteration")
        word = "the state settles" if frame < count else "then the adjoint settles"
        figure.suptitle(f"recurrent backpropagation: {word}")
        yield figure


def _settling(count: int, units: int) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Return iterates of a state and of its adjoint, and how much each changes."""
    keys = jax.random.split(jax.random.key(1), 3)
    matrix = 0.8 * jax.nn.initializers.orthogonal()(keys[0], (units, units))
    x = jax.random.normal(keys[1], (units,))
    f = lambda h: jnp.tanh(h @ matrix + x)
    target = jax.random.normal(keys[2], (units,)) / 2
    states = [jnp.zeros(units)]
    for _ in range(count - 1):
        states.append(f(states[-1]))
    equilibrium, info = gradients.fixed_point(
        lambda params, h, x: f(h), (), jnp.zeros(units), ()
    )
    assert bool(info.converged)
    _, transposed = jax.vjp(f, equilibrium)
    adjoints, cost = [jnp.zeros(units)], equilibrium - target
    for _ in range(count - 1):
        adjoints.append(transposed(adjoints[-1])[0] + cost)
    paths = np.array(states), np.array(adjoints)
    changes = [np.linalg.norm(np.diff(path, axis=0), axis=1) for path in paths]
    return *paths, changes


def rprop() -> Frames:
    """Draw the steps of SGD, Adam and Rprop on the contours of the same loss."""
    count, start = 40, jnp.array([-4.0, 2.5])
    loss = lambda w: 0.5 * (0.15 * w[0] ** 2 + 6.0 * w[1] ** 2 + 0.8 * w[0] * w[1])
    rules = {
        "sgd": optax.sgd(0.28),
        "adam": optax.adam(0.3),
        "rprop": updates.rprop(0.1),
    }
    paths = {name: _descend(loss, rule, start, count) for name, rule in rules.items()}
    xs, ys = np.meshgrid(np.linspace(-6, 2.5, 120), np.linspace(-3, 3.4, 120))
    heights = np.asarray(loss(jnp.array([xs, ys])))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for frame in range(count + 1):
        for axis, (name, path) in zip(axes, paths.items(), strict=True):
            axis.clear()
            axis.contour(
                xs, ys, heights, np.geomspace(0.03, 40, 11), colors="#cccccc",
                linewidths=0.8,
            )  # fmt: skip
            colour = update_style(name)["color"]
            axis.plot(*path[: frame + 1].T, "o-", color=colour, ms=3, lw=1.3)
            axis.plot(*path[frame], "o", color=colour, ms=8, mec="white")
            axis.plot(0, 0, "+", color="#222222", ms=10)
            axis.set(xlim=(-6, 2.5), ylim=(-3, 3.4), xticks=[], yticks=[])
            axis.set_title(name)
            value = float(f"{float(loss(path[frame])):.2g}")
            axis.set_xlabel(f"loss {report.number(value)}")
        figure.suptitle(f"step {frame}: the same loss and start (+: minimum)")
        yield figure


def _descend(loss: Callable, rule: Any, w: jax.Array, count: int) -> np.ndarray:
    """Return the weights after 0 … `count` updates, [count + 1, 2]."""
    state, path = rule.init(w), [w]
    for _ in range(count):
        change, state = rule.update(jax.grad(loss)(w), state, w)
        w = jnp.asarray(optax.apply_updates(w, change))
        path.append(w)
    return np.array(path)


def forgetting() -> Frames:
    """Draw past gradients that fade, and the discounted sum that the update follows."""
    count, decays = 40, (0.6, 0.9)
    noise = jax.random.normal(jax.random.key(7), (count,))
    steps = np.arange(count)
    grads = np.where(steps < count // 2, 1.0, -1.0) + 0.5 * np.asarray(noise)
    sums = {decay: _discounted(grads, decay) for decay in decays}
    figure = Figure(figsize=(8, 4.3), layout="constrained")
    axes = figure.subplots(len(decays), 2, sharex=True, sharey="col")
    for frame in range(count):
        for (left, right), (decay, total) in zip(axes, sums.items(), strict=True):
            for axis in (left, right):
                axis.clear()
                report.plain(axis)
                axis.axhline(0, color="#888888", linewidth=0.8)
                axis.set_xlim(-1, count)
            weights = decay ** np.arange(frame, -1.0, -1)
            colours = [COLOURS[0 if g > 0 else 1] for g in grads[: frame + 1]]
            left.bar(steps[: frame + 1], grads[: frame + 1], color="#e2e2e2")
            left.bar(steps[: frame + 1], weights * grads[: frame + 1], color=colours)
            left.set(ylim=(-2.6, 2.6))
            left.set_title(f"λ = {decay}: gradients (grey) times λ^age",
                           fontsize=11)  # fmt: skip
            colour = update_style("forgetting")["color"]
            right.plot(steps[: frame + 1], total[: frame + 1], color=colour, lw=1.8)
            right.plot(frame, total[frame], "o", color=colour, ms=6)
            high = max(abs(each).max() for each in sums.values())
            right.set(ylim=(-1.1 * high, 1.1 * high))
            right.set_title(f"their sum: {total[frame]:+.2f}", fontsize=11)
        for axis in axes[-1]:
            axis.set_xlabel("update")
        figure.suptitle("forgetting: the update follows a discounted sum of gradients")
        yield figure


def _discounted(grads: np.ndarray, decay: float) -> np.ndarray:
    """Return Σ_s λ^(t−s) g_s at each update t, as `updates.forgetting` computes it."""
    rule = updates.forgetting(1.0, decay)
    state, sums = rule.init(jnp.array(0.0)), []
    for grad in grads:
        change, state = rule.update(jnp.array(grad, jnp.float32), state)
        sums.append(-float(np.asarray(change)))
    return np.array(sums)


ANIMATIONS: dict[str, Callable[[], Frames]] = {
    "errors": errors,
    "relaxation": relaxation,
    "rprop": rprop,
    "forgetting": forgetting,
}


def save(path: pathlib.Path, frames: Frames) -> None:
    """Write frames as a GIF that takes SECONDS; its last frame stays for a second."""
    images = []
    for figure in frames:
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(80)
        canvas.draw()
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    palette = images[-1].quantize(COLOURS_KEPT, Image.Quantize.MAXCOVERAGE, kmeans=1)
    small = [
        image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images
    ]
    each = int(1000 * (SECONDS - 1) / len(small)) // 10 * 10  # a GIF counts 10 ms
    durations = [each] * (len(small) - 1) + [1000]
    path.parent.mkdir(parents=True, exist_ok=True)
    small[0].save(
        path, save_all=True, append_images=small[1:], duration=durations, loop=0,
        optimize=True,
    )  # fmt: skip


if __name__ == "__main__":
    for name in sys.argv[1:] or ANIMATIONS:
        save(IMAGES / f"{name}.gif", ANIMATIONS[name]())
