"""A clear error for reverse-mode derivatives of values that allow only forward mode."""

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def forward_only(x: jax.Array, message: str) -> jax.Array:
    """Return x; raise ValueError(message) if x is differentiated in reverse mode.

    The message replaces JAX's own error, which comes from deep inside the computation
    of x. Forward-mode derivatives of x are unchanged.
    """

    @jax.custom_jvp
    def identity(x):
        return x

    identity.defjvp(lambda x, tangent: (*x, _one_way.bind(*tangent, message=message)))
    return identity(x)


def _refuse(cotangent, x, *, message):
    del cotangent, x
    raise ValueError(message)


_one_way = Primitive("forward_only")
_one_way.def_impl(lambda x, *, message: x)
_one_way.def_abstract_eval(lambda x, *, message: x)
ad.deflinear2(_one_way, _refuse)
batching.defvectorized(_one_way)
mlir.register_lowering(_one_way, lambda context, x, *, message: [x])
