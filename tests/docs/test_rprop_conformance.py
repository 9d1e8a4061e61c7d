"""Tests of the conformance kit of docs/rprop_conformance.md, and of its results."""

import ast
import json
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from docs.conformance import make, reference, run, table
from tests.problems import GOLDEN

KIT = json.loads(run.KIT.read_text(encoding="utf-8"))
BY_NAME = {trace["name"]: trace for trace in KIT["traces"]}
RESULTS = json.loads(table.RESULTS.read_text(encoding="utf-8"))


def settings_of(trace):
    numbers = {k: reference.exact(v) for k, v in trace["settings"].items()}
    return reference.Settings(**numbers)


def test_the_file_is_what_the_reference_gives():
    assert make.text(make.kit()) == run.KIT.read_text(encoding="utf-8")


def test_the_file_is_json_for_all_languages():
    def refuse(constant):
        raise ValueError(constant)  # NaN and Infinity are JSON in Python only

    json.loads(run.KIT.read_text(encoding="ascii"), parse_constant=refuse)
    assert len(BY_NAME) == len(KIT["traces"])
    assert {trace["rule"] for trace in KIT["traces"]} == set(KIT["rules"])
    assert {trace["kind"] for trace in KIT["traces"]} == {
        "paper",
        "precision",
        "convention",
        "library",
    }


def golden():
    names = {
        "learning_rate": "first_step",
        "min_step_size": "min_step",
        "max_step_size": "max_step",
    }
    for path in sorted(GOLDEN.glob("rprop_*.json")):
        for trace in json.loads(path.read_text())["traces"]:
            given = {names[key]: value for key, value in trace["arguments"].items()}
            rule = {"rprop": "irprop_minus"}.get(trace["update"], trace["update"])
            yield rule, make.SETTINGS | given, trace


def test_the_reference_agrees_with_the_traces_worked_by_hand():
    compared = []
    for rule, settings, trace in golden():
        values = trace.get("values")
        if values is not None and any(map(math.isnan, values)):
            continue  # the papers do not say what a loss of NaN means
        values = None if values is None else [reference.exact(v) for v in values]
        grads = [[reference.exact(g) for g in trace["grads"]]]
        made = settings_of({"settings": settings})
        (steps,) = reference.play(rule, made, grads, values)
        np.testing.assert_allclose([*map(float, steps)], trace["updates"], rtol=1e-12)
        compared.append(rule)
    assert len(compared) > 20
    assert set(compared) == set(KIT["rules"]) - set(make.LIBRARIES)


def test_minima_belong_to_the_gradients():
    found = [trace for trace in KIT["traces"] if "minima" in trace]
    assert len(found) == 5
    for trace in found:
        weights = np.zeros(len(trace["minima"]))
        columns = (np.transpose(trace[key]) for key in ("grads", "steps"))
        for grads, steps in zip(*columns, strict=True):
            np.testing.assert_allclose(weights - trace["minima"], grads, atol=1e-12)
            weights = weights + steps


# Wrong versions of iRprop-, each with a trace that must find it.


def irprop_minus(trace, memories=None, **wrong):
    """Play a trace by floats; the keywords name what is wrong."""
    s = trace["settings"] | wrong.get("settings", {})
    low, high = s["min_step"], s["max_step"]
    first = (
        s["first_step"]
        if "unclipped" in wrong
        else min(max(s["first_step"], low), high)
    )
    memories = memories or [[first, 0.0] for _ in trace["grads"]]
    columns = []
    for grads in zip(*trace["grads"], strict=True):
        column = []
        for i, g in enumerate(grads):
            memory = memories[0 if "shared" in wrong else i]
            product = g * memory[1]
            if "underflow" not in wrong:
                product = np.sign(g) * np.sign(memory[1])
            if product > 0 or ("zeros_grow" in wrong and product == 0 and g == 0):
                memory[0] = min(memory[0] * s["eta_plus"], high)
            elif product < 0:
                memory[0] = max(memory[0] * s["eta_minus"], low)
                g = g if "no_pause" in wrong else 0.0
            if g or "zeros_kept" not in wrong:
                memory[1] = g
            column.append(float(-np.sign(g) * memory[0]))
        columns.append(column)
    return [list(row) for row in zip(*columns, strict=True)]


MISTAKES = {
    "zeros": {"zeros_grow": True},
    "zero_forgets": {"zeros_kept": True},
    "sign_changes": {"no_pause": True},
    "largest_step": {"settings": {"max_step": 1e9}},
    "smallest_step": {"settings": {"min_step": 0.0}},
    "own_bounds": {"settings": {"min_step": 1e-6, "max_step": 50.0}},
    "own_factors": {"settings": {"eta_minus": 0.5, "eta_plus": 1.2}},
    "weights": {"shared": True},
    "tiny_gradients": {"underflow": True},
    "first_step_above": {"unclipped": True},
    "first_step": {"settings": {"first_step": 0.084}},
}


@pytest.mark.parametrize("family", MISTAKES)
def test_a_mistake_is_found_by_its_trace(family):
    trace = BY_NAME[f"irprop_minus/{family}"]
    assert run.verdict(trace, irprop_minus(trace)) == "agrees"
    wrong = run.verdict(trace, irprop_minus(trace, **MISTAKES[family]))
    assert wrong not in run.FINE


def test_a_state_that_is_not_fresh_is_found():
    trace, memories = BY_NAME["irprop_minus/fresh_state"], [[0.1, 0.0]]
    assert run.verdict(trace, irprop_minus(trace, memories)) == "agrees"
    assert "step 1" in run.verdict(trace, irprop_minus(trace, memories))


def test_a_verdict_says_where_steps_differ():
    trace = BY_NAME["irprop_minus/weights"]
    got = [list(row) for row in trace["steps"]]
    assert run.verdict(trace, got) == "agrees"
    assert run.verdict(trace, None) == "not played"
    got[1][2] *= 1 + 1e-9
    assert run.verdict(trace, got).startswith("step 3 of weight 2: 0.05 instead of")
    assert run.verdict(trace, got, rtol=1e-8) == "agrees"
    got[1][2] = math.nan
    assert run.verdict(trace, got).startswith("step 3 of weight 2: nan instead of")
    assert "rows and columns" in run.verdict(trace, got[:2])


def started(*command):
    command = [sys.executable, str(run.KIT.with_name("run.py")), *command]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ("None", 0, "irprop_minus/zeros                         not played"),
        (
            "[[0.0 for _ in row] for row in trace['grads']]",
            1,
            "step 2: 0 instead of -0.1",
        ),
    ],
)
def test_a_program_is_asked_line_by_line(answer, status, said):
    code = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    trace = json.loads(line)\n"
        "    assert 'steps' not in trace\n"
        f"    print(json.dumps({answer}), flush=True)\n"
    )
    finished = started(sys.executable, "-c", code)
    assert finished.returncode == status, finished.stderr
    assert said in finished.stdout
    assert len(finished.stdout.splitlines()) == len(KIT["traces"])


def test_the_runner_needs_only_pythons_library():
    assert "python run.py" in started().stderr
    text = run.KIT.with_name("run.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 66
    imports = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import)]
    assert not any(isinstance(n, ast.ImportFrom) for n in ast.walk(ast.parse(text)))
    names = {alias.name for node in imports for alias in node.names}
    assert names
    assert names <= sys.stdlib_module_names


# Results of libraries, which docs/rprop_conformance.md shows.


def test_the_page_shows_the_results():
    page = table.PAGE.read_text(encoding="utf-8")
    shown = page.partition(table.BEGIN)[2].partition(table.END)[0]
    assert shown.strip() == table.tables(RESULTS)


def test_bpvariants_agrees_with_all_papers():
    rules = RESULTS["bpvariants"]["rules"]
    assert set(rules) == set(KIT["rules"]) - set(make.LIBRARIES)
    assert not any(found["differs"] for found in rules.values())


@pytest.mark.parametrize(
    ("name", "rule", "agreed"),
    [
        ("optax", "irprop_minus", 0),
        ("optax", "optax_0_2_8", 9),
        ("torch", "irprop_minus", 19),
        ("torch", "torch_2_13", 9),
        ("FANN", "irprop_minus", 0),
        ("FANN", "fann_2_2", 9),
        ("OpenCV", "half_back", 1),
    ],
)
def test_what_the_page_says_of_libraries(name, rule, agreed):
    found = RESULTS[name]["rules"][rule]
    assert len(found["agrees"]) == agreed
    if rule in make.LIBRARIES:
        assert not found["differs"]
    if name == "torch":
        assert all("tiny" in family for family in found["differs"])


@pytest.mark.slow
@pytest.mark.parametrize("name", table.LIBRARIES)
def test_results_are_those_of_the_library(name):
    recorded = RESULTS[name]
    installed = table.LIBRARIES[name].version()
    if installed != recorded["version"]:
        pytest.skip(f"results are of {name} {recorded['version']}, here: {installed}")
    assert table.play(name) == recorded


def test_exact_reads_the_decimal():
    assert reference.exact(0.1) == Fraction(1, 10)
    assert reference.exact(1e-200) == Fraction(1, 10**200)
