"""Tests that a run cannot be resumed if its input files have changed."""

import dataclasses
import json
from pathlib import Path

import pytest

from experiments.harness.errors import DataError
from experiments.harness.jobs import Job
from experiments.harness.study import run_study, Study


@dataclasses.dataclass(frozen=True)
class Config(Study):
    FILES = ("table", "other")

    table: Path | None = None
    other: str | None = None


def run(config):
    job = Job("length", 1, lambda way: {"length": config.table.stat().st_size})
    return run_study("made_up", config, lambda _: [job], lambda *_: None)


@pytest.fixture
def begun(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("a\n1\n2\n")
    config = Config(table=path, out=tmp_path / "out")
    run(config)
    return dataclasses.replace(config, resume=True)


def test_unchanged_files_are_resumed(begun):
    # A new modification time does not count as a change of the file.
    begun.table.touch()
    assert run(begun).rows[0]["length"] == 6
    stored = json.loads((begun.out / "config.json").read_text())
    assert stored["files"]["table"]["bytes"] == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\n1\n2\n3\n", r"3 lines \(6 bytes\), and has 4 \(8\); the rest was added"),
        ("a\n5\n2\n3\n", r"has 4 \(8\); the beginning differs, too"),
        ("a\n1\n", r"had 3 lines \(6 bytes\), and has 2 \(4\)"),
        ("a\n1\n3\n", "as many bytes, but others"),
        (None, "which is gone"),
    ],
)  # fmt: skip
def test_changed_files_are_told(begun, content, message):
    begun.table.unlink()
    if content is not None:
        begun.table.write_text(content)
    with pytest.raises(DataError, match=f"--table: .*{message}.*another --out"):
        run(begun)


@pytest.fixture
def begun_with_folder(tmp_path):
    folder = tmp_path / "mine"
    (folder / "more").mkdir(parents=True)
    for name in ("a.mid", "b.MID", "more/c.mid", "notes.txt"):
        (folder / name).write_text(name)
    config = WithFolder(table=folder, out=tmp_path / "out")
    run(config)
    return dataclasses.replace(config, resume=True)


class WithFolder(Config):
    ENDINGS = (".mid",)


def test_an_unchanged_folder_is_resumed(begun_with_folder):
    (begun_with_folder.table / "notes.txt").write_text("not read by the study")
    run(begun_with_folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mine: (mine / "d.mid").touch(), r"1 file added \(d\.mid\)\."),
        (
            lambda mine: [(mine / f"{i}.mid").touch() for i in range(4)],
            r"4 files added \(0\.mid, 1\.mid, 2\.mid, …\)\.",
        ),
        (
            lambda mine: (mine / "more/c.mid").rename(mine / "c.mid"),
            r"1 file added \(c\.mid\); 1 file removed \(more/c\.mid\)\.",
        ),
        (
            lambda mine: (mine / "a.mid").write_text("b.mid"),
            r"1 file changed \(a\.mid\)\.",
        ),
        (lambda mine: mine.rename(mine.with_name("other")), "which is gone: put that"),
    ],
)
def test_a_changed_folder_is_told(begun_with_folder, change, message):
    change(begun_with_folder.table)
    with pytest.raises(DataError, match=f"--table: .*{message}.*folder.*another --out"):
        run(begun_with_folder)


def test_a_run_that_does_not_know_its_files_is_not_resumed(begun):
    path = begun.out / "config.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"files": {}}))
    with pytest.raises(DataError, match=r"does not say what .*my\.csv was"):
        run(begun)


def test_files_are_options():
    class Wrong(Config):
        FILES = ("tabel",)

    with pytest.raises(ValueError, match="FILES must name options, got tabel"):
        run(Wrong())
