"""Every rule, update, solver and chunk of `fit` lowers for a TPU and an NVIDIA GPU.

`jax.export` lowers a program without running it, and needs no device. So these tests
show that no operation lacks a lowering rule; they do not show that XLA compiles it.
"""

import jax.numpy as jnp
import pytest

from tests.matrix import exports
from tests.matrix.networks import networks

FAST = ("rule/bptt", "rule/uoro", "fixed_point/anderson/cg", "update/rprop")


@pytest.fixture(scope="module")
def as_users(plain_jax):
    """Use JAX's default settings; the shared networks are made before, in float64."""
    networks()
    with plain_jax():
        yield


CASES = [
    pytest.param(
        name,
        dtype,
        id=f"{name}/{dtype}",
        marks=[] if name in FAST and dtype == "float32" else [pytest.mark.slow],
    )
    for name in exports.TABLE
    for dtype in exports.DTYPES
]


@pytest.mark.filterwarnings("ignore:eprop keeps no trace")
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_lowers(name, dtype, as_users):
    for platform, found in exports.lower(name, dtype).items():
        words = exports.EXPECTED.get((name, dtype, platform))
        if words is not None:
            assert isinstance(found, Exception), f"{platform}: remove it from EXPECTED"
            assert words in str(found)
            continue
        if isinstance(found, Exception):
            raise AssertionError(f"{name} cannot be lowered for {platform}") from found
        assert found.platforms == (platform,)
        # Nothing is computed in float64, which TPUs do not have. The table's feedback
        # weights are constants in float64.
        if not name.endswith("_feedback"):
            assert "f64" not in found.mlir_module()
        wanted = {aval.dtype for aval in found.in_avals}
        wanted |= {jnp.dtype("float32"), jnp.dtype("complex64")}  # the carry of lru
        floating = {
            aval.dtype
            for aval in found.out_avals
            if jnp.issubdtype(aval.dtype, jnp.inexact)
        }
        assert floating <= wanted


def test_expected_failures_are_rows_of_the_table():
    for name, dtype, platform in exports.EXPECTED:
        assert name in exports.TABLE
        assert dtype in exports.DTYPES
        assert platform in exports.PLATFORMS


def test_a_program_that_cannot_be_lowered_is_found(monkeypatch):
    def eigenvalues(dtype):
        return lambda w: jnp.linalg.eig(w)[0], (exports.zeros(2, 2, dtype=dtype),)

    monkeypatch.setitem(exports.TABLE, "eigenvalues", eigenvalues)
    found = exports.lower("eigenvalues", "float32")
    assert isinstance(found["tpu"], NotImplementedError)
