"""Distance of an input from the training inputs, calibrated on held-out inputs.

An input is described by one or more vectors v (views), such as the last state of a
network and simple statistics of the input. For each view, W whitens the vectors of the
training inputs, and d is the distance to the k-th nearest training vector:

    d(v) = ‖W (v − v_i)‖ / √dim,    W W = (C + ε I)^−1,    distance = max_views d / q

C is the covariance of the training vectors of one view, ε a share of its mean variance,
and v_i the k-th nearest training vector. A view with many dimensions is replaced by two
views: its first principal components, and the logarithm of the norm of the rest.
If the classes of the training inputs are given, C is the covariance within the classes,
and v_i the nearest mean of a class, so d is the Mahalanobis distance to this mean,
divided by √dim.

For each view, q is the d that a share `alarms` of held-out inputs exceeds. The largest
ratio over all views is scaled so that a share `alarms` of held-out inputs has a
distance above 1 (split conformal prediction). If a new input comes from the same
distribution as the held-out inputs, it is a false alarm with this probability at most.

References:
  Papadopoulos et al., "Inductive confidence machines for regression", ECML 2002.
  Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022,
  arXiv:2204.06507.
  Lee et al., "A simple unified framework for detecting out-of-distribution samples and
  adversarial attacks", NeurIPS 2018, arXiv:1807.03888 (distance to class means).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

ALARMS = 0.05  # share of held-out inputs with a distance above 1
NEIGHBOUR = 5  # k, the nearest neighbour whose distance counts
MOST = 1500  # largest number of training vectors that are stored
SHRINK = 0.02  # ε as a share of the mean variance
WIDE = 64  # a view with more dimensions is replaced by 64 principal components
FEWEST = 40  # fewest held-out inputs to calibrate a distance, and to measure alarms

Views = Mapping[str, np.ndarray]  # {view: vectors [N, dim]}


def calibrate(learned: Views, held_out: Views) -> dict[str, Any]:
    """Return what :func:`distances` needs, as a tree of arrays that can be saved.

    Half of the held-out inputs calibrate the distance. The share of false alarms among
    the other half is measured, and returned as `false_alarms`; `measured` is the
    number of these inputs.

    Args:
      learned: {view: [N, dim]}, vectors of training inputs.
      held_out: {view: [M, dim]}, vectors of inputs that were not trained on. If there
        are fewer than 2 · :data:`FEWEST`, nothing can be calibrated, and {} is
        returned.
    """
    if min(map(len, held_out.values())) < 2 * FEWEST:
        return {}
    held_out, others = (
        {name: np.asarray(view)[i::2] for name, view in held_out.items()}
        for i in (0, 1)
    )
    bases = _bases(learned)
    learned, held_out, others = (
        _narrow(bases, each) for each in (learned, held_out, others)
    )
    references = {name: _reference(vectors) for name, vectors in learned.items()}
    d = {name: _nearest(each, held_out[name]) for name, each in references.items()}
    found = _scaled(bases, references, d)
    beyond = _ratios(found, others) > 1
    found["false_alarms"] = np.float32(np.mean(beyond))
    found["measured"] = np.float32(len(beyond))
    return found


def calibrate_groups(
    learned: Views, groups: np.ndarray, classes: np.ndarray | None = None
) -> dict[str, Any]:
    """Calibrate by training inputs of several groups, such as speakers.

    A share `ALARMS` of the inputs of a group that is not in the training has a distance
    above 1. For the calibration, each group is compared with all other groups. This is
    honest only if the views do not depend on learned parameters. G groups give G sets,
    each without one group. For an input that calibrates, d is the distance to the set
    without the input's own group. For a new input, d is the mean distance to all G
    sets. So both are compared with G − 1 groups at a time.

    To measure the share of false alarms, each group is left out once of the whole
    calibration. The shares of all groups are returned as `by_group`, and their mean as
    `false_alarms`. The cost is G + G (G − 1) whitenings for G groups.

    Args:
      learned: {view: [N, dim]}, vectors of training inputs.
      groups: [N] group of each training input, at least three different groups.
      classes: [N] class of each training input, such as the digit. If it is given, the
        distance is to the mean of the nearest class, and W whitens the deviations from
        the mean of the own class.
    """
    found = _of_groups(learned, groups, classes)
    alarms = []
    for group in np.unique(groups):
        mine = groups == group
        known = None if classes is None else classes[~mine]
        without = _of_groups(_chosen(learned, ~mine), groups[~mine], known)
        alarms.append(np.mean(distances(without, _chosen(learned, mine)) > 1))
    found["by_group"] = np.array(alarms, np.float32)
    found["false_alarms"] = np.float32(np.mean(alarms))
    found["measured"] = np.float32(len(groups))
    return found


def _of_groups(
    learned: Views, groups: np.ndarray, classes: np.ndarray | None
) -> dict[str, Any]:
    """Return what :func:`distances` needs; compare each group with all the others."""
    bases = _bases(learned) if classes is None else {}
    narrow = _narrow(bases, learned)
    d = {name: np.zeros(len(groups)) for name in narrow}
    without: dict[str, list] = {name: [] for name in narrow}
    for group in np.unique(groups):
        mine = groups == group
        known = None if classes is None else classes[~mine]
        for name, vectors in narrow.items():
            reference = _reference(vectors[~mine], known)
            d[name][mine] = _nearest(reference, vectors[mine])
            without[name].append(reference)
    return _scaled(
        bases, {name: {"without": each} for name, each in without.items()}, d
    )


def _chosen(views: Views, rows: np.ndarray) -> Views:
    return {name: np.asarray(vectors)[rows] for name, vectors in views.items()}


def _scaled(bases: Any, references: Any, d: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return what :func:`distances` needs, from the distances d of held-out inputs."""
    views = {
        name: {**reference, "scale": np.float32(_exceeded(d[name]))}
        for name, reference in references.items()
    }
    ratios = np.max([d[name] / view["scale"] for name, view in views.items()], axis=0)
    return {"views": views, "bases": bases, "scale": np.float32(_exceeded(ratios))}


def distances(calibrated: Mapping[str, Any], views: Views) -> np.ndarray:
    """Return the distance of each of N inputs; the distance NaN becomes inf."""
    return _ratios(calibrated, _narrow(calibrated["bases"], views))


def _ratios(calibrated: Mapping[str, Any], views: Views) -> np.ndarray:
    """Return the distances of inputs whose wide views were replaced by narrow ones."""
    ratios = [
        _nearest(view, views[name]) / view["scale"]
        for name, view in calibrated["views"].items()
    ]
    found = np.max(ratios, axis=0) / calibrated["scale"]
    return np.where(np.isnan(found), np.inf, found)


def _bases(views: Views) -> dict[str, dict[str, np.ndarray]]:
    """Return the mean and the principal axes of each view with many dimensions."""
    found = {}
    for name, vectors in views.items():
        if vectors.shape[1] > WIDE:
            mean = vectors.mean(axis=0)
            centred = np.asarray(vectors - mean, float)
            _, axes = np.linalg.eigh(centred.T @ centred)
            axes = axes[:, : -WIDE - 1 : -1].astype(np.float32)
            found[name] = {"mean": mean, "axes": axes}
    return found


def _narrow(bases: Mapping[str, Any], views: Views) -> dict[str, np.ndarray]:
    """Replace each view with many dimensions by its two narrow views."""
    found = {}
    for name, vectors in views.items():
        if name not in bases:
            found[name] = vectors
            continue
        axes = bases[name]["axes"]
        centred = vectors - bases[name]["mean"]
        found[name] = centred @ axes
        rest = np.linalg.norm(centred - found[name] @ axes.T, axis=1)
        found[f"{name}, rest"] = np.log(rest + 1e-6)[:, None]
    return found


def _reference(
    vectors: np.ndarray, classes: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return the whitening of training vectors, and the vectors to compare with."""
    if classes is not None:
        _, index = np.unique(classes, return_inverse=True)
        means = np.stack(
            [vectors[index == i].mean(axis=0) for i in range(index.max() + 1)]
        )
        _, whiten = _whitening(vectors - means[index])
        mean = means.mean(axis=0).astype(np.float32)
        points = ((means - mean) @ whiten).astype(np.float32)
        return {
            "mean": mean,
            "whiten": whiten,
            "points": points,
            "k": np.array(1, np.int32),
        }
    chosen = np.linspace(0, len(vectors) - 1, min(MOST, len(vectors))).astype(int)
    mean, whiten = _whitening(vectors)
    points = ((vectors[chosen] - mean) @ whiten).astype(np.float32)
    k = np.array(NEIGHBOUR, np.int32)
    return {"mean": mean, "whiten": whiten, "points": points, "k": k}


def _whitening(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of vectors, and the symmetric square root of (C + ε I)^−1."""
    exact = np.asarray(vectors, float)
    mean = exact.mean(axis=0)
    covariance = np.atleast_2d(np.cov(exact, rowvar=False))
    dim = len(covariance)
    epsilon = max(SHRINK * covariance.trace() / dim, 1e-12)
    values, axes = np.linalg.eigh(covariance + epsilon * np.eye(dim))
    whiten = axes / np.sqrt(values) @ axes.T
    return mean.astype(np.float32), whiten.astype(np.float32)


def _nearest(view: Mapping[str, Any], vectors: np.ndarray) -> np.ndarray:
    """Return d of each vector, [N]; with several references, the mean over them."""
    if "without" in view:
        return np.mean([_nearest(each, vectors) for each in view["without"]], axis=0)
    points = np.asarray(view["points"], float)
    whitened = (np.asarray(vectors, float) - view["mean"]) @ view["whiten"]
    own, other = (whitened**2).sum(axis=1), (points**2).sum(axis=1)
    squares = own[:, None] + other - 2 * whitened @ points.T
    k = min(int(view.get("k", NEIGHBOUR)), len(points)) - 1
    nearest = np.partition(squares, k, axis=1)[:, k]
    return np.sqrt(np.maximum(nearest, 0) / points.shape[1])


def _exceeded(values: np.ndarray) -> float:
    """Return the value that a share `ALARMS` of the values exceeds, and new ones too.

    This is the ⌈(1 − ALARMS)(M + 1)⌉-th smallest of M values.
    """
    rank = math.ceil((1 - ALARMS) * (len(values) + 1))
    return max(float(np.sort(values)[min(rank, len(values)) - 1]), 1e-6)
