"""Test an Rprop optimiser against rprop.json: plain Python, and nothing to install.

    python run.py my_module:my_function      a function in Python
    python run.py ./my_program --option      any other program

The function gets a trace, a dictionary without the expected steps. It plays the trace
from a fresh state, and returns the changes of the weights, one row for each weight, or
None if it cannot play the trace. The program reads one trace a line, as JSON, and
answers each line by a line of JSON: the rows, or null. The environment variable RTOL
may hold a wider relative tolerance than that of the traces.
"""

import importlib
import json
import os
import pathlib
import subprocess
import sys

KIT = pathlib.Path(__file__).with_name("rprop.json")
FINE = "agrees", "not played"


def program(command):
    """Return a function that asks a program, which runs until the last trace."""
    pipe = subprocess.PIPE
    asked = subprocess.Popen(command, stdin=pipe, stdout=pipe, encoding="utf-8")

    def play(trace):
        print(json.dumps(trace), file=asked.stdin, flush=True)
        return json.loads(asked.stdout.readline())

    return play


def verdict(trace, got, rtol=0.0):
    """Return one of FINE, or the first place where steps differ from the trace's."""
    want, rtol = trace["steps"], max(rtol, trace["rtol"])
    if got is None:
        return FINE[1]
    if [len(row) for row in got] != [len(row) for row in want]:
        return "differs: steps must have the rows and columns of grads"
    for t, i in ((t, i) for t in range(len(want[0])) for i in range(len(want))):
        if not abs(got[i][t] - want[i][t]) <= rtol * abs(want[i][t]):
            where = f"step {t + 1}" + f" of weight {i + 1}" * (len(want) > 1)
            return f"{where}: {got[i][t] + 0.0:.6g} instead of {want[i][t]:.6g}"
    return FINE[0]


def check(play, traces, rtol=0.0):
    """Yield the name of each trace and its verdict."""
    for trace in traces:
        asked = {key: value for key, value in trace.items() if key != "steps"}
        yield trace["name"], verdict(trace, play(asked), rtol)


if __name__ == "__main__":
    sys.path.insert(0, "")
    module, _, name = (sys.argv[1:] or sys.exit(__doc__))[0].partition(":")
    play = getattr(importlib.import_module(module), name) if name else None
    traces = json.loads(KIT.read_text(encoding="utf-8"))["traces"]
    rtol = float(os.environ.get("RTOL", "0"))
    results = dict(check(play or program(sys.argv[1:]), traces, rtol))
    print(*(f"{name:42} {what}" for name, what in results.items()), sep="\n")
    sys.exit(any(what not in FINE for what in results.values()))
