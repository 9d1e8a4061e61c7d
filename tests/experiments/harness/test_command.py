"""Tests of the command line: Ctrl-C, ASCII terminals, and unusual file names."""

import io
import os
import runpy
import signal
import subprocess
import sys

import pytest

from experiments import report
from experiments.harness.errors import DataError
from experiments.harness.printing import show_every_text

# This program sends Ctrl-C to itself while a module is imported. The module ignores the
# KeyboardInterrupt, as some real modules do.
PRESS = """
import os, runpy, signal, sys

where = sys.argv[1]

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == where:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(100):
                    pass
            except KeyboardInterrupt:
                pass

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
sys.argv = ["experiments", *sys.argv[2:]]
runpy.run_module("experiments", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["tyro", "jax", "matplotlib", "experiments.scale"])
def test_ctrl_c_during_imports_exits_with_130(module, tmp_path):
    command = [sys.executable, "-c", PRESS, module, "pod", "--out", str(tmp_path / "o")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (130, "interrupted\n"), done.stdout
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_ctrl_c_at_any_time_exits_with_130(tmp_path):
    """Send Ctrl-C to a study at several times, also while Python imports modules."""
    for i, seconds in enumerate((0.3, 1.0, 2.0)):
        out = tmp_path / str(i)
        # No module has the name "none", so the program does not send Ctrl-C to itself.
        command = [sys.executable, "-c", PRESS, "none", "flow", "--out", str(out)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=100)
        assert process.returncode == 130, said


def test_ctrl_c_outside_of_jobs_exits_with_130(monkeypatch, ctrl_c, capsys):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["experiments", "pod"])
    monkeypatch.delitem(sys.modules, "experiments.__main__", raising=False)
    monkeypatch.setattr("experiments.scale.pod.main", pressed)
    monkeypatch.delitem(sys.modules, "experiments.__main__", raising=False)
    with pytest.raises(SystemExit) as left:
        runpy.run_module("experiments", run_name="__main__", alter_sys=True)
    assert left.value.code == 130
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_every_text_can_be_printed(monkeypatch):
    shown = {}
    text = "3 × 4 ± ½ é² λ 猫 " + os.fsdecode(b"caf\xe9")
    for encoding in ("ascii", "latin-1", "utf-8"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        show_every_text()
        print(text, flush=True)
        shown[encoding] = stream.buffer.getvalue()
    assert shown["ascii"] == b"3 x 4 ~ 1 e2 l ? caf\xe9\n"
    assert shown["latin-1"] == b"3 \xd7 4 \xb1 \xbd \xe9\xb2 l ? caf\xe9\n"
    assert shown["utf-8"] == text.encode(errors="surrogateescape") + b"\n"


@pytest.mark.slow
def test_a_study_prints_its_tables_in_ascii(tmp_path):
    given = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "experiments", "pod", "--quick", "--out", "o"]
    done = subprocess.run(
        command, capture_output=True, env=os.environ | given, timeout=100,
        cwd=tmp_path, check=True,
    )  # fmt: skip
    assert done.stdout.isascii()
    assert b"x 1 chip" in done.stdout
    assert (tmp_path / "o" / "results.jsonl").exists()


def test_an_out_that_is_not_utf8_is_refused_before_the_training(tmp_path):
    out = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(DataError, match="is not a name in UTF-8; choose another --out"):
        report.make_folder("study", out)
    assert not list(tmp_path.iterdir())


def test_a_page_may_name_a_file_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.csv")
    report.write_atomically(tmp_path / "report.html", f"× {name}")
    assert (tmp_path / "report.html").read_text("utf-8") == r"× caf\udce9.csv"
