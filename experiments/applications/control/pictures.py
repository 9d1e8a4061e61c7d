"""Pictures of `control`: phase portraits, and an episode as an animated GIF."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure

from experiments import report
from experiments.applications.control.policy import Played
from experiments.applications.control.systems import HALF, LINK, SYSTEMS, tip

TARGETS = {
    "arm": "×: target",
    "pendulum": "dashed: target",
    "cartpole": "dashed: target",
}
EPISODES = 2  # number of episodes in an animation
EACH = 2  # number of simulated steps from one frame to the next
RIGHT, WRONG = report.COLOURS[:2]


class Plane(NamedTuple):
    """Axes of a phase portrait: labels, and the function from states to coordinates."""

    x: str
    y: str
    # (states [T + 1, n], goal [g]) -> coordinates (x, y)
    of: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    error: str  # name and unit of the first error in `System.errors`


def _of_angle(angle: int) -> Callable:
    def of(states, _):
        turned = states[:, angle]
        x = (turned + np.pi) % (2 * np.pi) - np.pi
        jumps = np.abs(np.diff(x, append=x[-1])) > np.pi
        return np.where(jumps, np.nan, x), states[:, angle + 1]

    return of


def _of_hand(states, goal):
    away = np.asarray(tip(jnp.asarray(states))) - goal
    return away[:, 0], away[:, 1]


PLANES = {
    "pendulum": Plane("angle from upright, rad", "rad/s", _of_angle(0), "angle, rad"),
    "cartpole": Plane("angle from upright, rad", "rad/s", _of_angle(2), "angle, rad"),
    "arm": Plane("hand − goal, x, m", "hand − goal, y, m", _of_hand, "distance, m"),
}


def draw_portraits(
    name: str, played: Mapping[str, Played], goals: np.ndarray
) -> Figure:
    """Draw a phase portrait and the distances from the goal for each gradient rule.

    Args:
      name: name of the system.
      played: {gradient rule: episodes of one policy that the rule trained, [T, B, …]}.
      goals: the goal at each step of each episode, [T, B, g].
    """
    plane, system = PLANES[name], SYSTEMS[name]
    figure, axes = report.panels(
        2, len(played), width=3.7, height=3.3, sharex="row", sharey="row"
    )
    for column, (rule, each) in zip(axes.T, played.items(), strict=True):
        above, below = column
        found = system.errors(jnp.asarray(each.states[1:]), jnp.asarray(goals))
        errors = np.asarray(found)[..., 0]
        seconds = system.dt * (1 + np.arange(len(errors)))
        for i in range(errors.shape[1]):
            colour = RIGHT if each.success[i] else WRONG
            x, y = plane.of(np.asarray(each.states[:, i]), goals[0, i])
            above.plot(x, y, color=colour, linewidth=0.7, alpha=0.7)
            above.plot(x[:1], y[:1], "o", color=colour, markersize=3)
            below.plot(seconds, errors[:, i], color=colour, linewidth=0.7, alpha=0.7)
        below.axhline(system.tolerances[0][1], color="black", linestyle=":")
        right = int(np.sum(each.success))
        above.set(title=f"{rule}: {right} of {len(each.success)}", xlabel=plane.x)
        below.set(xlabel="seconds")
    axes[0, 0].set_ylabel(plane.y)
    axes[1, 0].set_ylabel(f"error: {plane.error}")
    words = (
        f"{name}: random starts (dots)\nblue: success at the end, orange: no success"
    )
    figure.suptitle(f"{words}\ndotted: the tolerance", fontsize=10)
    return figure


def save_movie(
    path: Path, name: str, rule: str, policies: Mapping[str, Played], goals: np.ndarray
) -> None:
    """Write the first few episodes of policies as an animated GIF, in real time.

    The policies of an episode stand beside one another. A dashed line is the target,
    and a bar below a panel is the action: torques, or the force on the cart.

    Args:
      path: the file to write.
      name: name of the system.
      rule: gradient rule that trained the policy.
      policies: {"untrained" or "trained": episodes of a policy, [T, B, …]}.
      goals: the goal at each step of each episode, [T, B, g].
    """
    if not report.writes():
        return
    system, states = SYSTEMS[name], next(iter(policies.values())).states
    shown = [
        (i, who) for i in range(min(EPISODES, states.shape[1])) for who in policies
    ]
    size = (2.3 * len(shown), 3.1)
    figure = Figure(figsize=size, dpi=60, layout="constrained")
    axes = figure.subplots(
        2, len(shown), squeeze=False, gridspec_kw={"height_ratios": [7, 1]}
    )
    parts = []
    for (stage, below), (i, who) in zip(axes.T, shown, strict=True):
        stage.set_title(f"start {i + 1}, {who}", fontsize=11)
        _draw_target(stage, name, goals[0, i])
        parts.append((_stage(stage, name), _bars(below, name)))
    title = figure.suptitle(" ")
    limit = np.array(system.limit)

    def show(frame):
        step = EACH * frame
        for (line, bars), (i, who) in zip(parts, shown, strict=True):
            played = policies[who]
            line.set_data(*_joints(name, np.asarray(played.states[step, i])))
            action = played.actions[min(step, len(played.actions) - 1), i] / limit
            for bar, width in zip(bars, action, strict=True):
                bar.set_width(width)
        words = f"{name}, trained by {rule}: {step * system.dt:.1f} s ({TARGETS[name]})"
        title.set_text(words)
        return [title]

    frames = 1 + (len(states) - 1) // EACH
    interval = 1000 * EACH * system.dt
    film: Any = FuncAnimation(figure, show, frames, interval=interval, blit=False)
    film.save(path, PillowWriter(fps=round(1000 / interval)))


def _stage(axis: Any, name: str) -> Any:
    """Prepare a panel of the animation; return the line that will show the rods."""
    wide = 2.5 if name == "cartpole" else 1.2
    low = -1.6 if name == "cartpole" else -1.2
    axis.set(xlim=(-wide, wide), ylim=(low, wide if name == "cartpole" else 1.2))
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    if name == "cartpole":
        axis.axhline(0, color="#bbbbbb", linewidth=1)
    (line,) = axis.plot([], [], "o-", color=RIGHT, linewidth=3, markersize=5)
    return line


def _draw_target(axis: Any, name: str, goal: np.ndarray) -> None:
    """Draw the pose to reach: the upright pole, or the place of the arm's hand."""
    if name == "arm":
        axis.plot(*goal[:2, None], "x", color=WRONG, markersize=9, markeredgewidth=2)
    else:
        axis.plot([0, 0], [0, 1], "--", color="#888888", linewidth=2)


def _bars(axis: Any, name: str) -> Any:
    """Prepare the panel of the action; return a bar for each actuator."""
    count = len(SYSTEMS[name].limit)
    axis.set(xlim=(-1, 1), ylim=(-0.6, count - 0.4), xticks=[-1, 0, 1], yticks=[])
    axis.set_xticklabels(["−max", "0", "max"], fontsize=8)
    axis.axvline(0, color="#888888", linewidth=0.8)
    what = "force" if name == "cartpole" else "torque" if count == 1 else "torques"
    axis.set_xlabel(what, fontsize=9, labelpad=1)
    return axis.barh(range(count), [0.0] * count, color=WRONG)


def _joints(name: str, state: np.ndarray) -> tuple[list[float], list[float]]:
    """Return coordinates x and y of the rods' joints and ends."""
    if name == "arm":
        both = state[0] + state[1]
        x, y = LINK * np.cos(state[0]), LINK * np.sin(state[0])
        return [0, x, x + LINK * np.cos(both)], [0, y, y + LINK * np.sin(both)]
    if name == "cartpole":
        place, _, angle, _ = state
        return [place, place + 2 * HALF * np.sin(angle)], [0, 2 * HALF * np.cos(angle)]
    return [0, np.sin(state[0])], [0, np.cos(state[0])]
