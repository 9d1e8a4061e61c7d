"""Write rprop.json, the traces of the kit: `python -m docs.conformance.make`.

Gradients come from families.py, steps from reference.py.
"""

import json
import pathlib
from fractions import Fraction
from typing import Any

from docs.conformance import reference
from docs.conformance.families import (
    FAMILIES,
    FAMILIES_OF,
    Family,
    LIBRARIES,
    LOSSES,
)
from docs.conformance.reference import exact

KIT = pathlib.Path(__file__).with_name("rprop.json")
SETTINGS = {
    "first_step": 0.1,
    "eta_minus": 0.5,
    "eta_plus": 1.2,
    "min_step": 1e-6,
    "max_step": 50.0,
}
# Relative tolerances: in float32, each growth of a step size may round. FANN stores its
# factors in float32, also in its library for double.
TOLERANCES = {"float64": 1e-12, "float32": 5e-6}
UNDERFLOW = {"float64": 2**1075, "float32": 2**150}  # 1 / the largest product that is 0
RULES = {
    "rprop_plus": (
        "Rprop+",
        "Riedmiller & Braun, 'A direct adaptive method for faster backpropagation "
        "learning: the RPROP algorithm', 1993, doi:10.1109/ICNN.1993.298623",
    ),
    "rprop_minus": (
        "Rprop-",
        "Riedmiller, 'Advanced supervised learning in multi-layer perceptrons', 1994, "
        "doi:10.1016/0920-5489(94)90017-5",
    ),
    "irprop_plus": (
        "iRprop+",
        "Igel & Huesken, 'Empirical evaluation of the improved Rprop learning "
        "algorithms', 2003, doi:10.1016/S0925-2312(01)00700-7",
    ),
    "irprop_minus": (
        "iRprop-",
        "Igel & Huesken, 'Empirical evaluation of the improved Rprop learning "
        "algorithms', 2003, doi:10.1016/S0925-2312(01)00700-7",
    ),
    "half_back": (
        "half_back",
        "no paper: what several programs compute under the name iRprop-",
    ),
    "manhattan": ("Manhattan", "the limit of Rprop- with both factors equal to 1"),
    "optax_0_2_8": (
        "optax.rprop up to 0.2.8",
        "no paper: iRprop- one step late, read in optax/_src/transform.py",
    ),
    "torch_2_13": (
        "torch.optim.Rprop of 2.13",
        "no paper: iRprop- with products that underflow, read in torch/optim/rprop.py",
    ),
    "fann_2_2": (
        "FANN_TRAIN_RPROP of FANN 2.2",
        "no paper: read in src/fann_train.c, fann_update_weights_irpropm",
    ),
}
ABOUT = (
    "Traces with which an implementation of resilient backpropagation (Rprop) can be "
    "tested. Feed the gradients of a trace one after another, and compare the changes "
    "of the weights with `steps`."
)
FORMAT = {
    "rule": "variant of Rprop whose equations give the steps",
    "kind": "paper: the equations decide. precision: the equations decide, but a "
    "program that multiplies gradients or compares rounded factors fails. convention: "
    "the papers do not say; the steps are those of a first step size that is clipped "
    "to its bounds. library: what one version of a library computes; not a goal.",
    "dtype": "floating-point type of gradients, step sizes and weights",
    "settings": "first_step: first step size, the same for all weights. eta_minus, "
    "eta_plus: factors of the step size. min_step, max_step: bounds of the step size.",
    "grads": "one row for each weight, one column for each step",
    "values": "the loss at each step, where its gradient was taken; only for iRprop+",
    "minima": "if present, the gradients are those of the sum of (w - m)^2 / 2 from "
    "w = 0, m being the weight's minimum, and follow the expected steps",
    "steps": "the expected changes of the weights, in rows and columns like grads; a "
    "descent has a negative step where the gradient is positive",
    "rtol": "relative tolerance of the comparison; steps of 0 are exact",
}
PROVENANCE = (
    "Steps are computed by docs/conformance/reference.py of bpvariants in exact "
    "fractions, from the equations of the papers named under `rules`, and then rounded "
    "once to float64. No library computed them. License: Apache-2.0."
)


def trace(family: Family, rule: str, values: list[float] | None = None) -> dict:
    """Return one trace of the kit, with exact steps that are rounded once."""
    numbers = SETTINGS | family.settings
    settings = reference.Settings(**{k: exact(v) for k, v in numbers.items()})
    dtype = "float64" if rule == "fann_2_2" else family.dtype
    settings.underflow = Fraction(1, UNDERFLOW[dtype])
    if family.minima is not None:
        minima = [exact(m) for m in family.minima]
        grads, losses, steps = reference.descend(rule, settings, minima, 14)
        values = _floats([losses])[0] if rule == "irprop_plus" else None
    else:
        assert family.grads is not None
        grads = [[exact(g) for g in row] for row in family.grads]
        losses = None if values is None else [exact(v) for v in values]
        steps = reference.play(rule, settings, grads, losses)
    made: dict[str, Any] = {
        "name": f"{rule}/{family.name}",
        "rule": rule,
        "about": family.about,
        "kind": "library" if rule in LIBRARIES else family.kind,
        "dtype": family.dtype,
        "settings": numbers,
        "grads": _floats(grads),
        "steps": _floats(steps),
        "rtol": TOLERANCES["float32" if rule == "fann_2_2" else family.dtype],
    }
    if values is not None:
        made["values"] = values
    if family.minima is not None:
        made["minima"] = family.minima
    return made


def _floats(rows):
    return [[float(number) for number in row] for row in rows]


def kit() -> dict:
    """Return the whole kit, as rprop.json contains it."""
    traces = []
    for family in FAMILIES:
        for rule in RULES:
            if family.name not in FAMILIES_OF.get(rule, {family.name}):
                continue
            if rule != "irprop_plus" or family.grads is None:
                traces.append(trace(family, rule))
                continue
            length = len(family.grads[0])
            rising = [float(t + 1) for t in range(length)]
            for how, values in (("rises", rising), ("falls", rising[::-1])):
                name = f"{family.name}_loss_{how}"
                traces.append(trace(family._replace(name=name), rule, values))
    for name, (about, grads, values) in LOSSES.items():
        traces.append(trace(Family(name, about, grads), "irprop_plus", values))
    rules = {rule: {"name": n, "source": s} for rule, (n, s) in RULES.items()}
    head = {"about": ABOUT, "provenance": PROVENANCE, "format": FORMAT}
    return {**head, "rules": rules, "traces": traces}


def text(made: dict) -> str:
    """Return the kit as JSON in which each row of numbers is one line."""
    head = json.dumps({k: v for k, v in made.items() if k != "traces"}, indent=1)
    blocks = []
    for one in made["traces"]:
        lines = []
        for key, value in one.items():
            if key in ("grads", "steps"):
                rows = ",\n".join(f"    {json.dumps(row)}" for row in value)
                lines.append(f'   "{key}": [\n{rows}\n   ]')
            else:
                lines.append(f'   "{key}": {json.dumps(value)}')
        blocks.append("  {\n" + ",\n".join(lines) + "\n  }")
    traces = ",\n".join(blocks)
    return head.removesuffix("\n}") + f',\n "traces": [\n{traces}\n ]\n}}\n'


if __name__ == "__main__":
    KIT.write_text(text(kit()), encoding="utf-8")
