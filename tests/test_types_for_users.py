"""Type checks of programs as users write them, by pyright in its basic mode."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
    "README.md",
    *(
        f"docs/{name}.md"
        for name in ["contract", "recipes", "resets", "writing_your_own"]
    ),
]
SETTINGS = {"typeCheckingMode": "basic", "pythonVersion": "3.11"}

# Calls that a type checker must understand, and the types that an editor must show.
SHOWN = """
import jax
import jax.numpy as jnp
import numpy as np
from bpvariants import cells, gradients, updates

def loss(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)

key = jax.random.key(0)
params = cells.gru.init(key, 3, 8)
carry = cells.gru.carry(params, (4,))
xs, targets = jnp.ones((5, 4, 3)), jnp.zeros((5, 4, 8))

# Rules that draw random numbers take a key.
artbp = gradients.artbp(cells.gru, loss, truncation=0.1)
(value, last), grads = artbp(params, carry, xs, targets, key=key)
along = gradients.over_sequence(gradients.uoro(cells.gru, loss))
(value, last), grads = along(params, carry, xs, targets, key=key)
drawn = gradients.uoro(cells.gru, loss)
state = drawn.init(params, carry, (xs[0], targets[0]))
value, grads, state = drawn.update(params, state, xs[0], targets[0], key=key)
reveal_type(value)  # Array
reveal_type(drawn.init.__call__)  # inputs: Any
reveal_type(drawn.update.__call__)  # key: Array | None = None
reveal_type(artbp.__call__)  # key: Array | None = None
# Weights, masks and resets may be NumPy arrays.
flags = np.ones((5, 4), bool)
(value, last), grads = gradients.bptt(cells.gru, loss)(
    params, carry, xs, targets, weights=1.0 * flags, mask=flags, reset=flags
)
last, ys = gradients.unroll(cells.gru, params, carry, xs, mask=flags, reset=flags)

dense = lambda w, y: y @ w
layers = [(dense, jnp.tanh), (dense, jnp.tanh)]
matrices = [jnp.ones((3, 8)), jnp.ones((8, 8))]
static = gradients.backprop(layers, loss)
(value, info), parts = static(matrices, xs[0], targets[0])
reveal_type(info)  # BackpropInfo
reveal_type(static.__call__)  # target: Any, weights: Array
aligned = gradients.feedback_alignment(layers, loss, kind="brsf")
(value, info), parts = aligned(matrices, xs[0], targets[0], key=key)
reveal_type(aligned.__call__)  # feedback: Sequence[Any] | None = None
settle = lambda w, h, x: jnp.tanh(h @ w + x)
settles = gradients.recurrent_backprop(settle, loss)
(value, found), grads = settles(jnp.eye(8), targets[0], targets[0], targets[0])
reveal_type(found)  # Equilibrium
reveal_type(settles.__call__)  # start_adjoint: Any | None = None
"""

# Each line is a mistake that a type checker must find.
MISTAKES = """
import jax
import jax.numpy as jnp
from bpvariants import cells, diagnostics, gradients, training, updates

loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
key = jax.random.key(0)
step, layers, f = cells.gru, [], lambda w, h, x: h
gradients.bptt(step, loss, backward="two_phases")
gradients.bptt(step, loss, remat="steps")
gradients.bptt(step, loss)(0.0, 0.0, 0.0, 0.0, key=key)
gradients.feedback_alignment(layers, loss, kind="usfs")
gradients.recurrent_backprop(f, loss, on_failure="raise")
gradients.fixed_point(f, 0.0, 0.0, 0.0, on_failure="raise")
gradients.parallel_unroll(step, 0.0, 0.0, 0.0, method="newtons")
gradients.forward_gradient(step, loss, distribution="uniform")
gradients.pes(step, loss, pairs=2, window=2, sigma=0.1, distribution="uniform")
gradients.rtrl(step, loss).update(0.0, 0.0, 0.0, 0.0, weights=1.0)
gradients.backprop(layers, loss)([], 0.0, 0.0, feedback=[])
updates.rprop(0.1, state="int4")
updates.scale_by_rprop(0.1, variant="plus")
updates.grprop(0.1, choose="all")
updates.probabilistic_rprop(0.1, move="mean")
training.fit(loss, updates.rprop(), 0.0, (), steps=1, nonfinite="no")
"""


def check(folder, name, text):
    """Return pyright's diagnostics of a program, as (line, severity, message)."""
    (folder / name).write_text(text)
    settings = SETTINGS | {"extraPaths": [str(ROOT)], "include": [name]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [
            sys.executable, "-m", "pyright", "--outputjson", "--pythonpath",
            sys.executable, "-p", str(folder),
        ],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] == 1, done.stdout
    return [
        (each["range"]["start"]["line"], each["severity"], each["message"])
        for each in found["generalDiagnostics"]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_code_of_the_pages_has_no_type_errors(page, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    found = check(tmp_path, "user.py", "\n".join(blocks))
    assert [each for each in found if each[1] == "error"] == []


@pytest.mark.slow
def test_an_editor_shows_the_arguments_of_rules(tmp_path):
    found = check(tmp_path, "user.py", SHOWN)
    assert [each for each in found if each[1] == "error"] == []
    shown = {line: text for line, kind, text in found if kind == "information"}
    wanted = {
        i: line.partition("  # ")[2]
        for i, line in enumerate(SHOWN.splitlines())
        if line.startswith("reveal_type")
    }
    assert shown.keys() == wanted.keys()
    for i, words in wanted.items():
        assert words in shown[i], shown[i]


@pytest.mark.slow
def test_wrong_choices_are_type_errors(tmp_path):
    found = check(tmp_path, "user.py", MISTAKES)
    lines = MISTAKES.splitlines()
    wrong = {i for i, line in enumerate(lines) if re.match(r"(gra|upd|tra)\w+\.", line)}
    errors = {line for line, kind, _ in found if kind == "error"}
    assert [lines[i] for i in sorted(wrong - errors)] == []
    assert [lines[i] for i in sorted(errors - wrong)] == []
