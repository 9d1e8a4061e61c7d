"""Tests of feedback alignment, against backpropagation and the papers' equations."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import diagnostics, gradients

KINDS = ["fa", "dfa", "usf", "brsf", "frsf"]
close = lambda got, want: chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-14)


def dense(params, y):
    return y @ params["w"] + jnp.expand_dims(params["b"], 0)


def loss(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)


def layers_of(depth):
    return [(dense, jnp.tanh)] * (depth - 1) + [(dense, lambda s: s)]


def problem(widths=(3, 5, 4, 2), batch=6):
    keys = iter(jax.random.split(jax.random.key(1), 16))
    normal = lambda *shape: jax.random.normal(next(keys), shape)
    sizes = itertools.pairwise(widths)
    params = [{"w": normal(n, m), "b": normal(m)} for n, m in sizes]
    return params, normal(batch, widths[0]), normal(batch, widths[-1])


def options(kind, layers, params, x):
    if kind == "brsf":
        return {"key": jax.random.key(7)}
    key = jax.random.key(4)
    return {"feedback": gradients.alignment_weights(key, layers, params, x, kind=kind)}


def by_hand(params, x, target, matrices, direct=False):
    """Run feedback alignment in NumPy.

    The `matrices` [out, in] replace the transposed weights in the backward pass.
    """
    ws, bs = ([np.asarray(p[name]) for p in params] for name in "wb")
    ys = [np.asarray(x)]
    for i, (w, b) in enumerate(zip(ws, bs, strict=True)):
        s = ys[-1] @ w + b
        ys.append(np.tanh(s) if i < len(ws) - 1 else s)
    delta = last = 2 * (ys[-1] - np.asarray(target)) / len(x)
    grads = []
    for i in reversed(range(len(ws))):
        grads.append({"w": ys[i].T @ delta, "b": delta.sum(0)})
        if i:
            below = last @ matrices[i - 1] if direct else delta @ matrices[i]
            delta = below * (1 - ys[i] ** 2)
    return grads[::-1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_equations_of_the_papers(kind):
    params, x, target = problem()
    layers = layers_of(3)
    given = options(kind, layers, params, x)
    rule = gradients.feedback_alignment(layers, loss, kind=kind)
    (value, info), grads = jax.jit(rule)(params, x, target, **given)
    (want, exact_info), exact = gradients.backprop(layers, loss)(params, x, target)
    close(value, want)
    # The gradient of the last layer is exact for every rule.
    close(grads[-1], exact[-1])
    assert all(
        bool(jnp.any(a["w"] != b["w"]))
        for a, b in zip(grads, exact, strict=True)
        if a is not grads[-1]
    )
    ws = [np.asarray(p["w"]) for p in params]
    if kind == "dfa":
        matrices = [np.asarray(B) for B in given["feedback"][:-1]]
    elif kind == "usf":
        matrices = [(np.sqrt(2 / sum(w.shape)) * np.sign(w)).T for w in ws]
    else:
        drawn = given.get("feedback")
        # The kind "brsf" draws the same matrices as "frsf" with the same key.
        if kind == "brsf":
            drawn = gradients.alignment_weights(
                given["key"], layers, params, x, kind="frsf"
            )
        R = [None] + [np.asarray(B["w"]) for B in drawn[1:]]
        sign = lambda B, w: B if kind == "fa" else np.abs(B) * np.sign(w)
        pairs = zip(R, ws, strict=True)
        matrices = [None if B is None else sign(B, w).T for B, w in pairs]
    close(list(grads), by_hand(params, x, target, matrices, kind == "dfa"))
    if kind == "brsf":
        _, others = rule(params, x, target, key=jax.random.key(8))
        assert jnp.any(others[0]["w"] != grads[0]["w"])
    angles = jax.jit(diagnostics.alignment_angles)(info, exact_info)
    for i, (a, b) in enumerate(zip(grads, exact, strict=True)):
        flat = lambda tree: np.concatenate([a.ravel() for a in jax.tree.leaves(tree)])
        a, b = flat(a), flat(b)
        cosine = np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)
        assert abs(angles.grads[i] - np.degrees(np.arccos(cosine))) < 1e-5
    assert angles.deltas[-1] < 1e-10 < 1 < angles.deltas[0]


def test_with_true_weights_it_is_backpropagation():
    params, x, target = problem()
    layers = layers_of(3)
    weights = jnp.arange(6.0)
    run = lambda rule, **given: jax.jit(rule)(params, x, target, weights, **given)
    (_, exact_info), exact = run(gradients.backprop(layers, loss))
    (_, info), grads = run(gradients.feedback_alignment(layers, loss), feedback=params)
    close((info, grads), (exact_info, exact))
    # The kind frsf is exact if its random matrices have the absolute values |W|,
    # because |W| ⊙ sgn W = W. The kind usf is exact if all weights have the same
    # absolute value.
    rule = gradients.feedback_alignment(layers, loss, kind="frsf")
    close(run(rule, feedback=params)[1], exact)
    params = jax.tree.map(lambda p: 0.3 * jnp.sign(p), params)
    rule = gradients.feedback_alignment(layers, loss, kind="usf", scale=0.3)
    close(run(rule)[1], run(gradients.backprop(layers, loss))[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_narrow_params_and_one_example(kind):
    params, x, target = problem()
    narrow = lambda tree: jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree)
    layers = [(lambda p, y: y @ p["w"] + p["b"], layer[1]) for layer in layers_of(3)]
    params, x, target = narrow((params, x[0], target[0]))
    if kind == "brsf":
        given = {"key": jax.random.key(7)}
    else:
        draw = gradients.alignment_weights
        feedback = draw(jax.random.key(4), layers, params, x, kind=kind, batch_ndim=0)
        given = {"feedback": feedback}
    chex.clear_trace_counter()
    rule = chex.assert_max_traces(
        gradients.feedback_alignment(layers, loss, kind=kind), 1
    )
    rule = jax.jit(rule)
    for _ in range(2):
        (value, _), grads = rule(params, x, target, **given)
    assert value.dtype == jnp.float32
    chex.assert_trees_all_equal_shapes_and_dtypes(list(grads), params)
    chex.assert_tree_all_finite(grads)


def test_with_one_hidden_layer_direct_feedback_is_feedback_alignment():
    params, x, target = problem((3, 5, 2))
    layers = layers_of(2)
    B = jax.random.normal(jax.random.key(9), (2, 5))
    rule = lambda kind: gradients.feedback_alignment(layers, loss, kind=kind)
    direct = rule("dfa")(params, x, target, feedback=(B, None))
    fa = rule("fa")(params, x, target, feedback=(None, {"w": B.T, "b": None}))
    close(direct, fa)


def conv(kernel, y):
    return jax.lax.conv_general_dilated(
        y, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def images():
    keys = iter(jax.random.split(jax.random.key(3), 8))
    normal = lambda *shape: jax.random.normal(next(keys), shape)
    params = [
        normal(3, 3, 1, 2),
        normal(3, 3, 2, 2),
        {"w": normal(32, 2), "b": normal(2)},
    ]
    return params, normal(3, 4, 4, 1), normal(3, 2)


@pytest.mark.slow
def test_convolutions_and_residual_sums_as_layers_and_as_operations():
    """Compare feedback_alignment with feedback_dense and feedback_conv in a function.

    The function is differentiated by `jax.grad`.
    """
    params, x, target = images()
    flat = lambda y: y.reshape(3, -1)
    layers = [
        (conv, jax.nn.relu),
        (lambda k, y: y + conv(k, y), jnp.tanh),
        (lambda p, y: dense(p, flat(y)), lambda s: s),
    ]

    def own(params, feedback, kind):
        B = [None, None, None] if feedback is None else feedback
        y = jax.nn.relu(conv(params[0], x))
        y = jnp.tanh(y + gradients.feedback_conv(y, params[1], None, B[1], kind=kind))
        w, b = params[2]["w"], params[2]["b"]
        B = B[2] if B[2] is None else B[2]["w"]
        y = gradients.feedback_dense(flat(y), w, b, B, kind=kind)
        return jnp.mean(loss(y, target))

    exact = gradients.backprop(layers, loss)(params, x, target)[1]
    for kind in ("fa", "usf", "frsf"):
        key = jax.random.key(4)
        feedback = gradients.alignment_weights(key, layers, params, x, kind=kind)
        rule = gradients.feedback_alignment(layers, loss, kind=kind)
        _, grads = rule(params, x, target, feedback=feedback)
        assert jnp.any(grads[0] != exact[0])
        got, none = jax.grad(own, (0, 1))(params, feedback, kind)
        close(tuple(got), grads)
        chex.assert_trees_all_equal(none, jax.tree.map(jnp.zeros_like, feedback))
    # If the feedback weights equal the forward weights, the gradient is exact.
    close(tuple(jax.grad(own)(params, params, "fa")), exact)
    direct = gradients.feedback_alignment(layers, loss, kind="dfa")
    B = gradients.alignment_weights(jax.random.key(4), layers, params, x, kind="dfa")
    assert [b.shape for b in B[:-1]] == [(2, 4, 4, 2)] * 2
    (_, info), grads = direct(params, x, target, feedback=B)
    error = jnp.einsum("bi,ihwc->bhwc", info[-1].delta, B[0])
    close(info[0].error, error)
    close(info[0].delta, jnp.where(info[0].s > 0, error, 0))
    close(grads[-1], exact[-1])


@pytest.mark.slow
def test_operations_take_any_batch_strides_and_padding():
    keys = jax.random.split(jax.random.key(0), 4)
    w, B = (jax.random.normal(key, (2, 3, 2, 4)) for key in keys[:2])
    x = jax.random.normal(keys[2], (2, 3, 5, 6, 2))

    def plain(w, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = x.reshape(6, 5, 6, 2)
        s = jax.lax.conv_general_dilated(
            x, w, (2, 1), "VALID", dimension_numbers=numbers
        )
        return s.reshape(2, 3, *s.shape[1:])

    own = lambda w, x, B: gradients.feedback_conv(
        x, w, feedback=B, strides=(2, 1), padding="VALID"
    )
    close(own(w, x, B), plain(w, x))
    delta = jax.random.normal(keys[3], plain(w, x).shape)
    grads = jax.vjp(lambda w, x: own(w, x, B), w, x)[1](delta)
    close(grads[0], jax.vjp(lambda w: plain(w, x), w)[1](delta)[0])
    close(grads[1], jax.vjp(lambda x: plain(B, x), x)[1](delta)[0])
    own = jax.grad(lambda x, B: jnp.sum(gradients.feedback_dense(x, 2 * B, feedback=B)))
    want = jnp.broadcast_to(jnp.sum(B[0, 0], 1), x.shape)
    close(own(x, B[0, 0]), want)
    half = lambda *arrays: [a.astype(jnp.bfloat16) for a in arrays]
    assert own(*half(x, B[0, 0])).dtype == jnp.bfloat16


def test_a_weight_of_zero_sends_nothing_and_scales_are_those_of_initialisers():
    w = jnp.array([[0.0, -2.0], [3.0, 0.5]])
    back = lambda **given: jax.grad(
        lambda x: gradients.feedback_dense(x, w, **given)[0]
    )(jnp.ones(2))
    root = lambda number: jnp.asarray(number) ** 0.5
    close(back(kind="usf"), jnp.array([0.0, 1.0]) * root(2 / 4))
    close(back(kind="usf", scale="kaiming"), jnp.array([0.0, 1.0]) / root(6.0))
    close(back(kind="usf", scale=2.0), jnp.array([0.0, 2.0]))
    close(back(kind="frsf", feedback=-w - 1), jnp.array([0.0, 4.0]))


@pytest.mark.slow
def test_it_learns_and_aligns():
    """Train on Lillicrap et al.'s linear task.

    The loss must decrease, and the angle to the exact error signal must fall below 60°.
    """
    params, x, _ = problem((6, 8, 2), batch=40)
    target = x @ jax.random.normal(jax.random.key(6), (6, 2))
    params = jax.tree.map(lambda p: 0.1 * p, params)
    layers = [(dense, lambda s: s)] * 2
    B = gradients.alignment_weights(jax.random.key(4), layers, params, x)
    rule = gradients.feedback_alignment(layers, loss)
    exactly = gradients.backprop(layers, loss)

    def step(params, _):
        (value, info), grads = rule(params, x, target, feedback=B)
        (_, exact), _ = exactly(params, x, target)
        params = jax.tree.map(lambda p, g: p - 0.02 * g, params, list(grads))
        return params, (value, diagnostics.alignment_angles(info, exact))

    train = jax.jit(lambda params: jax.lax.scan(step, params, None, 600))
    _, (values, angles) = train(params)
    assert values[-1] < 0.01 * values[0]
    assert angles.deltas.shape == (600, 2)
    assert angles.deltas[-1, 0] < 60
    chex.assert_trees_all_equal(angles.grads[:, 1], jnp.zeros(600))


def test_mistakes_are_named():
    params, x, target = problem()
    layers, key = layers_of(3), jax.random.key(0)
    B = gradients.alignment_weights(key, layers, params, x)
    rule = lambda kind: gradients.feedback_alignment(layers, loss, kind=kind)
    run = lambda kind, params=params, **given: rule(kind)(params, x, target, **given)
    wrong = [
        ("kind must be one of fa, dfa", lambda: rule("sf")),
        ("feedback is missing for 'fa': give grad", lambda: run("fa")),
        ("key is missing for 'brsf'", lambda: run("brsf")),
        ("feedback must be left out for 'usf'", lambda: run("usf", feedback=B)),
        ("key must be left out for 'fa'", lambda: run("fa", feedback=B, key=key)),
        ("one entry for each .* a tuple of 2", lambda: run("fa", feedback=B[1:])),
        ("one entry for each layer; got 2 for 3", lambda: run("usf", params[:2])),
        (
            r"feedback\[1\] must be like params\[1\]",
            lambda: run("fa", feedback=(B[2],) * 3),
        ),
        ("drawn for another kind", lambda: run("dfa", feedback=B)),
        (
            r"feedback\[1\] does not fit; draw",
            lambda: run("dfa", feedback=(B[1], B[2], None)),
        ),
    ]
    for message, call in wrong:
        with pytest.raises(ValueError, match=message):
            call()
    bent = [layers[0], (lambda p, y: dense(p, jnp.sin(y)), jnp.tanh), layers[2]]
    with pytest.raises(ValueError, match=r"layers\[1\] must be affine in y"):
        gradients.feedback_alignment(bent, loss)(params, x, target, feedback=B)
    # A layer without random feedback uses its forward weights, so it may be nonlinear
    # in them.
    kept = B[0], None, B[2]
    kept = B[0], {"w": None, "b": None}, B[2]
    gradients.feedback_alignment(bent, loss)(params, x, target, feedback=kept)
    w = jnp.ones((3, 4))
    wrong = [
        ("w must have shape", lambda: gradients.feedback_dense(x[:, :2], w)),
        ("feedback must have the shape of", lambda: gradients.feedback_dense(x, w)),
        (
            "feedback must be None for 'usf'",
            lambda: gradients.feedback_dense(x, w, None, w, kind="usf"),
        ),
        (
            "scale must be 'xavier'",
            lambda: gradients.feedback_dense(x, w, kind="usf", scale="he"),
        ),
        (
            "kind must be one of fa, usf",
            lambda: gradients.feedback_dense(x, w, kind="dfa"),
        ),
        ("b must have one number", lambda: gradients.feedback_dense(x, w, x[0], w)),
        (
            r"w must have shape \[\*window",
            lambda: gradients.feedback_conv(x, w[None, None]),
        ),
    ]
    for message, call in wrong:
        with pytest.raises(ValueError, match=message):
            call()
    shallow = gradients.backprop(layers[:2], lambda y, t: jnp.sum(y, -1))
    infos = [shallow(params[:2], x, target)[0][1], run("fa", feedback=B)[0][1]]
    with pytest.raises(ValueError, match="info and exact must be of the same layers"):
        diagnostics.alignment_angles(*infos)
    nothing = jax.tree.map(jnp.zeros_like, infos[0])
    assert jnp.all(jnp.isnan(diagnostics.alignment_angles(nothing, infos[0]).deltas))
