"""Play the traces by each library that is installed, and write the page's tables.

    python -m docs.conformance.table

results.json keeps what the libraries gave. A library that is not installed keeps its
last results. The tables stand in docs/rprop_conformance.md, between two comments.
"""

import importlib.metadata
import importlib.util
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from docs.conformance import libraries, run, trainers

RESULTS = pathlib.Path(__file__).with_name("results.json")
PAGE = pathlib.Path(__file__).parents[1] / "rprop_conformance.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
RTOL_OF_FANN = 1e-6  # FANN stores its factors in float32


class Library(NamedTuple):
    """How a library plays a trace, and its version, or None if it is not installed."""

    play: Callable[[dict[str, Any]], Any]
    version: Callable[[], str | None]
    rtol: float = 0.0


def _installed(module, *distributions):
    def version():
        if importlib.util.find_spec(module) is None:
            return None
        for name in distributions:
            try:
                return importlib.metadata.version(name).partition("+")[0]
            except importlib.metadata.PackageNotFoundError:
                continue
        return None

    return version


def _version_of_bpvariants():
    return "this version" if importlib.util.find_spec("jax") else None


def _version_of_fann():
    return None if trainers.fann_library() is None else "2.2.0"


OPENCV = "opencv-python-headless", "opencv-python", "opencv-contrib-python"
LIBRARIES = {
    "bpvariants": Library(libraries.bpvariants_rprop, _version_of_bpvariants),
    "optax": Library(libraries.optax_rprop, _installed("optax", "optax")),
    "torch": Library(libraries.torch_rprop, _installed("torch", "torch")),
    "FANN": Library(trainers.fann_rprop, _version_of_fann, RTOL_OF_FANN),
    "OpenCV": Library(trainers.opencv_rprop, _installed("cv2", *OPENCV)),
}


def traces() -> list[dict[str, Any]]:
    """Return the traces of the kit."""
    return json.loads(run.KIT.read_text(encoding="utf-8"))["traces"]


def play(name: str) -> dict[str, Any]:
    """Play all traces by a library that is installed; return what results.json has."""
    library = LIBRARIES[name]
    rules: dict[str, Any] = {}
    for trace, verdict in run.check(library.play, traces(), library.rtol):
        rule, _, family = trace.partition("/")
        if verdict == "not played":
            continue
        of_rule = rules.setdefault(rule, {"agrees": [], "differs": {}})
        if verdict == "agrees":
            of_rule["agrees"].append(family)
        else:
            of_rule["differs"][family] = verdict
    return {"version": library.version(), "rules": rules}


def tables(results: dict[str, Any]) -> str:
    """Return the two tables of the page, in Markdown."""
    kit = json.loads(run.KIT.read_text(encoding="utf-8"))
    names = [_called(name, found) for name, found in results.items()]
    counts = [["rule", *names], ["---"] * (len(names) + 1)]
    for rule in kit["rules"]:
        cells = [_count(found["rules"].get(rule)) for found in results.values()]
        counts.append([f"`{rule}`", *cells])
    compared = [name for name in ("optax", "torch", "FANN") if name in results]
    details = [["trace", *(_called(name, results[name]) for name in compared)]]
    details.append(["---"] * len(details[0]))
    for trace in kit["traces"]:
        rule, _, family = trace["name"].partition("/")
        if rule == "irprop_minus":
            cells = [
                results[name]["rules"][rule]["differs"].get(family, "agrees")
                for name in compared
            ]
            details.append([f"`{family}`", *cells])
    first = "Traces of each rule with which a library agrees, of those that it played:"
    second = "Where they differ from iRprop⁻:"
    return "\n\n".join([first, _markdown(counts), second, _markdown(details)])


def _called(name, found):
    return f"{name} {found['version']}".replace(" this", ", this")


def _count(of_rule):
    if of_rule is None:
        return "–"
    agreed = len(of_rule["agrees"])
    return f"{agreed} of {agreed + len(of_rule['differs'])}"


def _markdown(rows):
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write(results: dict[str, Any]) -> None:
    """Write results.json and the tables of the page."""
    text = json.dumps(results, indent=1, ensure_ascii=False)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    made = f"{before}{BEGIN}\n\n{tables(results)}\n\n{END}{after}"
    PAGE.write_text(made, encoding="utf-8")


def main() -> None:
    """Play the traces by each library that is installed; keep the others' results."""
    old = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    new = {name: play(name) for name in LIBRARIES if LIBRARIES[name].version()}
    write(
        {name: new.get(name, old.get(name)) for name in LIBRARIES if name in old | new}
    )


if __name__ == "__main__":
    main()
