"""`python -m bpvariants`: one screen that is right, and that never crashes."""

import importlib.metadata
import os
import platform
import subprocess
import sys

import jax
import pytest

import bpvariants
from bpvariants import __main__ as command

# A finder that hides a package, for a process in which it is not installed.
HIDDEN = """
import importlib.metadata, runpy, sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "flax":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
whole = importlib.metadata.version
def version(name):
    if name == "flax":
        raise importlib.metadata.PackageNotFoundError(name)
    return whole(name)
importlib.metadata.version = version
runpy.run_module("bpvariants", run_name="__main__")
"""


def test_the_screen_has_what_a_bug_report_needs():
    text = command.report()
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 100
    assert f"bpvariants {bpvariants.__version__}" in text
    assert bpvariants.__doc__.strip() in text
    assert platform.python_version() in text
    for package in ("jax", "jaxlib", "optax", "flax", "numpy"):
        line = next(x for x in text.splitlines() if x.split()[:1] == [package])
        assert line.split()[1] == importlib.metadata.version(package)
    assert f"  {len(jax.devices())} × cpu" in text


def test_addresses_come_from_the_metadata(monkeypatch):
    entries = ["Documentation, https://a.b/docs", "Repository, https://a.b"]

    class Found:
        def get_all(self, name):
            return entries if name == "Project-URL" else None

    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: Found())
    text = command.report()
    assert "documentation  https://a.b/docs" in text
    assert "a checkout of the source (https://a.b)" in text

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "metadata", missing)
    assert "a checkout of the source; there," in command.report()


def test_a_missing_package_and_a_missing_backend_are_told(monkeypatch):
    whole = importlib.metadata.version

    def version(name):
        if name == "flax":
            raise importlib.metadata.PackageNotFoundError(name)
        return whole(name)

    def devices():
        raise RuntimeError("Unable to initialize backend 'cuda': no GPU\nmore")

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(jax, "devices", devices)
    text = command.report()
    assert "flax        not installed" in text
    assert "JAX finds no backend: Unable to initialize backend 'cuda': no GPU" in text
    assert "more" not in text.split("Devices")[1]


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | environment,
    )


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", "cuda", "nonsense"])
def test_the_command_works_on_any_backend(backend):
    done = run("-m", "bpvariants", JAX_PLATFORMS=backend)
    assert done.returncode == 0, done.stderr
    assert f"bpvariants {bpvariants.__version__}" in done.stdout
    found = "1 × cpu" if backend == "cpu" else "JAX finds no backend"
    assert found in done.stdout


@pytest.mark.slow
def test_the_command_works_without_flax():
    done = run("-c", HIDDEN, JAX_PLATFORMS="cpu")
    assert done.returncode == 0, done.stderr
    assert "flax        not installed" in done.stdout
