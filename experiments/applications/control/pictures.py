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

PANELS = 4  # number of episodes in an animation
EACH = 2  # number of simulated steps from one frame to the next
RIGHT, WRONG = "C0", "C3"


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
    figure = Figure(figsize=(1 + 3.4 * len(played), 6.6), layout="constrained")
    axes = figure.subplots(2, len(played), squeeze=False, sharex="row", sharey="row")
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
    title = f"{name}: random starts (dots)"
    if len(played) > 1:
        title += ", blue for success in the last second (dotted: the tolerance)"
    figure.suptitle(title)
    return figure


def save_movie(
    path: Path, name: str, rule: str, played: Played, goals: np.ndarray
) -> None:
    """Write the first few episodes as an animated GIF, in real time.

    Args:
      path: the file to write.
      name: name of the system.
      rule: gradient rule that trained the policy.
      played: episodes of the policy, [T, B, …].
      goals: the goal at each step of each episode, [T, B, g].
    """
    if not report.writes():
        return
    system, count = SYSTEMS[name], min(PANELS, played.states.shape[1])
    figure = Figure(figsize=(2.6 * count, 2.9), dpi=60, layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    lines, points = zip(*(_stage(axis, name) for axis in axes), strict=True)
    title = figure.suptitle(f"{name}, {rule}")
    limit = np.array(system.limit)

    def show(frame):
        step = EACH * frame
        for i, (line, point) in enumerate(zip(lines, points, strict=True)):
            state, goal = np.asarray(played.states[step, i]), goals[0, i]
            line.set_data(*_joints(name, state))
            action = played.actions[min(step, len(played.actions) - 1), i] / limit
            at = goal if name == "arm" else (2 * action[0], -1.4)
            point.set_data([at[0]], [at[1]])
        what = "goal" if name == "arm" else "action"
        title.set_text(f"{name}, {rule}: {step * system.dt:.1f} s (×: the {what})")
        return [*lines, *points, title]

    frames = 1 + (len(played.states) - 1) // EACH
    interval = 1000 * EACH * system.dt
    film: Any = FuncAnimation(figure, show, frames, interval=interval, blit=False)
    film.save(path, PillowWriter(fps=round(1000 / interval)))


def _stage(axis: Any, name: str) -> tuple[Any, Any]:
    """Prepare a panel of the animation.

    Return the line that will show the rods, and the marker for the goal or the action.
    """
    wide = 2.5 if name == "cartpole" else 1.2
    low = -1.6 if name == "cartpole" else -1.2
    axis.set(xlim=(-wide, wide), ylim=(low, wide if name == "cartpole" else 1.2))
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    if name == "cartpole":
        axis.axhline(0, color="0.7", linewidth=1)
    (line,) = axis.plot([], [], "o-", color="C0", linewidth=3, markersize=5)
    (mark,) = axis.plot([], [], "x", color="C3", markersize=9, markeredgewidth=2)
    return line, mark


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
