"""What updates ask of params."""

import jax
import optax

from bpvariants._checks import check_floating, check_real


def check_params(params: optax.Params) -> None:
    """Check that steps can be taken; a mask may have left no params at all."""
    if jax.tree.leaves(params):
        check_floating("params", params)


def check_signed(params: optax.Params) -> None:
    """Check that gradients have signs, which those of complex params have not."""
    check_params(params)
    check_real(
        "params",
        params,
        "wrap the optimizer in optax.contrib.split_real_and_imaginary.",
    )
