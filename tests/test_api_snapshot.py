"""The public interface is that of `api_snapshot.txt`."""

import difflib
import importlib

import bpvariants
from tests.api_snapshot import FILE, public_modules, snapshot


def test_the_interface_is_that_of_the_snapshot():
    before, now = FILE.read_text().splitlines(), snapshot().splitlines()
    changes = list(
        difflib.unified_diff(before, now, "snapshot", "now", n=0, lineterm="")
    )
    assert not changes, (
        "The public interface has changed. If this is meant, run "
        "`python -m tests.api_snapshot`, and add a line to CHANGELOG.md.\n"
        + "\n".join(changes)
    )


def test_the_snapshot_has_every_public_name():
    text, missing = snapshot(), []
    for module in public_modules():
        for name, value in vars(importlib.import_module(module)).items():
            ours = str(getattr(value, "__module__", "")).startswith("bpvariants")
            if ours and not name.startswith("_") and f"{module}.{name}" not in text:
                missing.append(f"{module}.{name}")
    assert not missing
    assert "bpvariants.gradients.bptt(step: Step, loss: Loss, *" in text


def test_a_changed_signature_changes_the_snapshot(monkeypatch):
    def bptt(step, loss): ...

    bptt.__module__ = "bpvariants.gradients.through_time._truncated_bptt"
    bptt.__name__ = "truncated_bptt"
    before = snapshot()
    monkeypatch.setattr(bpvariants.gradients, "bptt", bptt)
    assert snapshot() != before
    monkeypatch.delattr(bpvariants.gradients, "bptt")
    lost = set(before.splitlines()) - set(snapshot().splitlines())
    assert any("bpvariants.gradients.bptt" in line for line in lost)
