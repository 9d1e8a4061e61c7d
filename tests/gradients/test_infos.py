"""Tests of the texts and pictures of FixedPointInfo and ParallelInfo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from bpvariants.gradients.equilibrium import Equilibrium, FixedPointInfo
from bpvariants.gradients.through_time import ParallelInfo

INFO = FixedPointInfo(
    steps=jnp.array([3, 9, 40]),
    residual=jnp.array([1e-6, 0.0, 0.25]),
    converged=jnp.array([True, True, False]),
    spectral_radius=jnp.array([0.5, 0.0, 1.5]),
    krylov=jnp.array([False, False, True]),
    damping=jnp.array([1.0, 1.0, 0.5]),
    accelerated=jnp.array([False, False, True]),
)
PARALLEL = ParallelInfo(
    steps=jnp.array([2, 2]),
    residual=jnp.array([1e-7, 1e-3]),
    converged=jnp.array([True, False]),
    fell_back=jnp.array([False, True]),
    carries=jnp.zeros((5, 2, 3)),
)


def test_infos_in_one_line():
    assert repr(INFO) == (
        "FixedPointInfo(2 of 3 examples converged, 3 to 40 steps, residual up to .2500,"
        " conjugate gradients in 1, accelerated in 1, damping .5000)"
    )
    one = jax.tree.map(lambda leaf: leaf[0], INFO)
    assert repr(one) == "FixedPointInfo(converged in 3 steps, residual 1.0e-06)"
    bad = one._replace(converged=jnp.array(False), steps=jnp.array(1))
    assert repr(bad) == "FixedPointInfo(not converged after 1 step, residual 1.0e-06)"
    assert repr(PARALLEL) == (
        "ParallelInfo(1 of 2 examples converged, 2 iterations, residual up to .001000, "
        "1 run step by step)"
    )
    both = Equilibrium(jnp.ones(3), forward=one, adjoint=bad, z=jnp.ones(3))
    assert repr(both) == f"Equilibrium(forward={one}, adjoint={bad})"
    nothing = jax.tree.map(lambda leaf: leaf[:0], INFO)
    assert repr(nothing) == "FixedPointInfo(no examples)"


def test_infos_are_pytrees_and_have_a_repr_while_traced():
    texts = []

    def passed(infos):
        texts.extend(map(repr, infos))
        return infos

    found = jax.jit(passed)((INFO, PARALLEL))
    assert texts[0].startswith("FixedPointInfo(steps=int64[3], residual=float64[3], ")
    assert "carries=float64[5, 2, 3]" in texts[1]
    assert repr(found[0]) == repr(INFO)
    assert len(jax.tree.leaves(found)) == 12
    shapes = jax.eval_shape(passed, (INFO, PARALLEL))
    assert repr(shapes[0]).startswith("FixedPointInfo(steps=int64[3], ")
    assert repr(INFO._replace(residual="text")).startswith(
        "FixedPointInfo(steps=int64[3]"
    )


def test_tables_have_a_line_for_each_example():
    lines = INFO.table().splitlines()
    assert lines[0].split() == [
        "example", "steps", "residual", "converged", "spectral_radius", "krylov",
        "damping", "accelerated",
    ]  # fmt: skip
    assert " ".join(lines[3].split()) == "2 40 .2500 no 1.500 yes .5000 yes"
    assert lines[4].startswith("1 of 3 examples did not converge. Where spectral_")
    assert "gradients.solvers.anderson()" in lines[5]
    good = jax.tree.map(lambda leaf: leaf[:2], INFO)
    assert len(good.table().splitlines()) == 3
    worst = INFO.table(1).splitlines()
    assert worst[1] == lines[3]
    assert worst[2] == "2 more, with residuals that are not larger"
    assert [*map(len, map(str.split, PARALLEL.table().splitlines()))] == [5, 5, 5]
    grid = jax.tree.map(lambda leaf: leaf.reshape(1, 3), INFO)
    assert grid.table().splitlines()[3].startswith("0, 2 ")
    alone = FixedPointInfo(*(leaf[0] for leaf in INFO[:4]))  # with default fields
    assert alone.table().splitlines()[1].split()[-3:] == ["no", "1.000", "no"]


@pytest.mark.parametrize("info", [INFO, PARALLEL])
def test_pictures_have_a_point_for_each_example(info):
    axes = info.plot(Figure().subplots())
    good, bad = axes.lines
    assert len(good.get_xdata()) == int(np.sum(info.converged))
    np.testing.assert_array_equal(bad.get_ydata(), info.residual[~info.converged])
    assert axes.get_yscale() == "log"
    assert all(tick == round(tick) for tick in axes.get_xticks())
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[0].startswith("converged: ")
