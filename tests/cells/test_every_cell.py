"""Tests of every cell: each is a step, and has the methods `init` and `carry`."""

import copy
import doctest
import pickle
import pydoc
import sys

import chex
import jax
import jax.numpy as jnp
import pytest

from bpvariants import cells

CELLS = {name: c for name, c in vars(cells).items() if isinstance(c, cells.Cell)}
D, N = 2, 3


@pytest.fixture(params=CELLS.values(), ids=list(CELLS))
def cell(request):
    return request.param


def test_all_are_looked_at():
    names = {"alif", "gru", "lif", "lru", "lstm", "min_gru", "rtu", "tanh"}
    names |= {"reversible_gru"}
    assert set(CELLS) == names
    assert all(cell.__name__ == name for name, cell in CELLS.items())


@pytest.mark.parametrize("batch", [(), (4,), (4, 5)])
def test_a_step_goes_on_from_the_first_carry(cell, batch):
    params = cell.init(jax.random.key(0), D, N)
    carry = cell.carry(params, batch)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(carry))
    new, y = cell(params, carry, jnp.ones((*batch, D)))
    chex.assert_trees_all_equal_shapes_and_dtypes(new, carry)
    assert y.shape[:-1] == batch


def test_a_cell_behaves_as_a_function_does(cell):
    for function in (cell, cell.init, cell.carry):
        assert pickle.loads(pickle.dumps(function)) is function
        assert copy.deepcopy(function) is function
        assert {function: 1}[function] == 1
    assert cell.__name__ in repr(cell)
    params = cell.init(jax.random.key(0), D, N)
    traces = []

    def step(static, *args):
        traces.append(static)
        return static(*args)

    step = jax.jit(step, static_argnums=0)
    args = params, cell.carry(params), jnp.ones(D)
    got = [step(cell, *args) for _ in range(2)]
    assert traces == [cell]
    chex.assert_trees_all_close(got[1], jax.jit(cell)(*args), rtol=1e-12)


def test_a_cell_is_documented_where_it_is_looked_for(cell):
    shown = pydoc.render_doc(cell, renderer=pydoc.plaintext)
    for part in (cell, cell.init, cell.carry):
        assert part.__doc__.splitlines()[0] in shown
    module = sys.modules[cell.__module__]
    found = {
        test.name for test in doctest.DocTestFinder().find(module) if test.examples
    }
    name = f"{cell.__module__}.{type(cell).__name__}"
    assert found >= {name, f"{name}.init", f"{name}.carry"}


def test_lru_has_as_many_outputs_as_units_unless_told():
    draw = lambda *outputs: cells.lru.init(jax.random.key(0), D, N, *outputs)
    chex.assert_trees_all_equal(draw(), draw(N))
    assert draw(5)["skip"].shape == (D, 5)
