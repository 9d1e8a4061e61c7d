"""Tests of the harness of all studies: options, resumed jobs, and errors."""

import dataclasses
import importlib
import json
import signal
import subprocess
import sys
from typing import ClassVar

import pytest

from experiments import __main__ as command, report
from experiments.harness import options
from experiments.harness.errors import DataError
from experiments.harness.help import help_of
from experiments.harness.jobs import Job
from experiments.harness.study import run_study, Study


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Config of a minimal study, which squares the numbers of a list."""

    QUICK: ClassVar = {"numbers": (1, 2)}
    CHECKS: ClassVar = {"numbers": options.all_of(options.given, options.at_least(1))}

    numbers: tuple[int, ...] = (1, 2, 3)


def make_main(stop_at=None):
    """Return the `main` of the minimal study; Ctrl-C interrupts the job `stop_at`."""
    trained, shown = [], []

    def train(number, way):
        if number == stop_at:
            raise KeyboardInterrupt
        trained.append(number)
        return [{"number": number, "square": number**2}, {"number": -number}]

    def main(config):
        jobs = lambda config: [
            Job(f"job {n}", 1, lambda way, n=n: train(n, way)) for n in config.numbers
        ]
        return run_study("squares", config, jobs, lambda *args: shown.append(args))

    return main, trained, shown


def without_times(rows):
    return [{k: v for k, v in row.items() if k != "wall_seconds"} for row in rows]


def test_an_interrupted_study_is_resumed_to_the_same_rows(tmp_path):
    whole = make_main()[0](Config(out=tmp_path / "whole"))
    main, trained, shown = make_main(stop_at=3)
    part = main(Config(out=tmp_path / "part"))
    assert part.interrupted
    assert not whole.interrupted
    assert trained == [1, 2]
    # An interrupted study prints the rows of finished jobs.
    assert [call[2] for call in shown] == [part.rows]
    main, trained, _ = make_main()
    again = main(Config(out=tmp_path / "part", resume=True))
    assert trained == [3]
    assert without_times(again.rows) == without_times(whole.rows)
    lines = (tmp_path / "part" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == again.rows


def test_rows_of_a_job_are_written_together(tmp_path):
    """Remove an incomplete last line, as after a full disk, and redo its job."""
    main, _, _ = make_main()
    rows = main(Config(out=tmp_path)).rows
    path = tmp_path / "results.jsonl"
    text = path.read_text()
    path.write_text("".join(text.splitlines(keepends=True)[:4]) + '{"job": "jo')
    main, trained, _ = make_main()
    again = main(Config(out=tmp_path, resume=True))
    assert trained == [3]
    assert without_times(again.rows) == without_times(rows)
    assert not list(tmp_path.glob("*.tmp"))


def test_quick_takes_the_small_sizes_unless_others_are_given(tmp_path):
    main, trained, _ = make_main()
    main(Config(quick=True, out=tmp_path / "quick"))
    assert trained == [1, 2]
    main(Config(quick=True, numbers=(5,), out=tmp_path / "own"))
    assert trained == [1, 2, 5]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"numbers": ()}, "numbers must have one value at least"),
        ({"numbers": (1, 0)}, r"numbers must be at least 1, got \(1, 0\)"),
        ({"resume": True}, "resume needs out, the folder of the run"),
        ({"resume": True, "overwrite": True, "out": "a"}, "overwrite exclude each"),
    ],
)
def test_options_are_checked(given, says):
    with pytest.raises(ValueError, match=says):
        Config(**given)


def test_checks_say_what_is_allowed():
    with pytest.raises(ValueError, match="rate must be positive, got 0"):
        options.above(0)("rate", 0)
    with pytest.raises(ValueError, match=r"rate must be in \(0, 1\], got 0"):
        options.within(0, 1, ends="(]")("rate", 0)
    options.within(0, 1, ends="(]")("rate", 1)
    options.above(0)("rate", None)  # None: the study chooses the value
    with pytest.raises(ValueError, match="rate must be positive, got nan"):
        options.above(0)("rate", float("nan"))
    with pytest.raises(ValueError, match="Did you mean 'bptt'"):
        options.known(["bptt", "rtrl"])("rule", "btpp")


def test_folders_are_not_overwritten(tmp_path):
    main, _, _ = make_main()
    main(Config(out=tmp_path))
    with pytest.raises(DataError, match=r"another --out, add --resume .* --overwrite"):
        main(Config(out=tmp_path))
    with pytest.raises(DataError, match="differs from the run in"):
        main(Config(numbers=(7,), resume=True, out=tmp_path))
    with pytest.raises(DataError, match="holds no run to resume"):
        main(Config(resume=True, out=tmp_path / "elsewhere"))


def test_overwrite_deletes_the_earlier_run_and_nothing_else(tmp_path):
    main, trained, _ = make_main()
    main(Config(out=tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    again = main(Config(numbers=(7,), overwrite=True, out=tmp_path))
    assert trained == [1, 2, 3, 7]
    assert {row["job"] for row in again.rows} == {"job 7"}
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "checkpoints").exists()


def test_overwrite_leaves_a_folder_without_a_run_alone(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    make_main()[0](Config(overwrite=True, out=tmp_path))
    assert (tmp_path / "checkpoints").is_dir()


def test_a_stopped_study_says_how_to_go_on(tmp_path, capsys):
    main, *_ = make_main(stop_at=2)
    main(Config(out=tmp_path))
    said = capsys.readouterr()
    command = f"python -m experiments squares --resume --out {tmp_path}"
    assert command in said.err  # at the beginning, for a run that is killed
    assert command in said.out
    assert "--overwrite" in said.out
    assert "Interrupted: some jobs" in (tmp_path / "report.html").read_text()
    main, *_ = make_main()
    main(Config(out=tmp_path, resume=True))
    assert command not in capsys.readouterr().out
    assert "Interrupted" not in (tmp_path / "report.html").read_text()


KILLED = """
import dataclasses, os, pathlib, signal, sys
from experiments.harness.jobs import Job
from experiments.harness.study import Study, run_study

def train(way):
    os.kill(os.getpid(), signal.SIGTERM)

jobs = lambda config: [Job("job", 1, train)]
run_study("squares", Study(out=pathlib.Path(sys.argv[1])), jobs, print)
"""


@pytest.mark.slow
def test_a_study_that_is_terminated_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == -signal.SIGTERM
    last = done.stderr.split("Stopped by a signal.")[1]
    assert f"python -m experiments squares --resume --out {tmp_path}" in last


def test_help_is_wrapped_once_and_has_full_phrases():
    for name, entry in command.STUDIES.items():
        study = importlib.import_module(f"experiments.{entry.module}")
        texts = help_of(study.Config)
        fields = {field.name for field in dataclasses.fields(study.Config)}
        assert set(texts) >= fields - {"machine"}, name  # options of its own
        for option, text in texts.items():
            assert "\n" not in text, (name, option)
            assert text[0].isupper() or not text[0].isalpha(), (name, option)
            assert text[-1] in ".…", (name, option)


def test_lines_of_help_are_full(capsys, monkeypatch):
    """Check that no line of the help ends where its next word would still fit."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        command.main(["copy_adding", "--help"])
    text = capsys.readouterr().out
    assert "Number of blank steps of the copy task" in text
    lines = [line.strip("│|").rstrip() for line in text.splitlines()]
    indents = [len(line) - len(line.lstrip()) for line in lines]
    column = max(indents)  # where the help of options stands
    assert indents.count(column) > 10
    width = max(len(line) for line in lines if line[:1] == " ")  # as tyro draws panels
    assert width >= 80 - 5
    for line, below, indent in zip(lines, lines[1:], indents[1:], strict=False):
        has_help = line[column:].strip() and not line[column - 2 : column].strip()
        if indent == column and has_help:
            assert len(f"{line} {below.split()[0]}") > width, (line, below)


def test_one_process_at_a_time_runs_a_study_in_a_folder(tmp_path):
    inner = []

    def jobs(config):
        def train(way):
            for resume in (False, True):
                with pytest.raises(
                    DataError, match=r"--out .* is in use by process"
                ) as e:
                    run_study("inner", Config(out=tmp_path, resume=resume), jobs, print)
                inner.append(e)
            return {}

        return [Job("outer", 1, train)]

    result = run_study("outer", Config(out=tmp_path), jobs, lambda *_: None)
    assert len(inner) == 2
    stored = json.loads((tmp_path / "config.json").read_text())["config"]
    # The runs with an error have not overwritten config.json.
    assert stored["resume"] is False
    assert len(result.rows) == 1
    assert not (tmp_path / ".lock").exists()


def test_runs_that_start_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda *_: "now")
    names = [report.make_folder("study", None).name for _ in range(3)]
    assert names == ["study-now", "study-now-2", "study-now-3"]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.json", '{"config": {"num', "config.json is damaged"),
        ("config.json", "\0\0", "config.json is damaged"),
        ("config.json", "[]", "config.json is damaged"),
        ("results.jsonl", '{"job": "job 1"}\n\0\0\n', "damaged: line 2 is not a row"),
        ("results.jsonl", "3\n", "damaged: line 1 is not a row"),
    ],
)
def test_a_damaged_run_is_not_resumed_but_explained(tmp_path, file, content, says):
    main, _, _ = make_main()
    main(Config(out=tmp_path))
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=says):
        main(Config(out=tmp_path, resume=True))
    assert (tmp_path / file).read_text() == content


def raise_full(*paths):
    raise OSError("disk full")


def test_a_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    report.write_atomically(path, "before")
    monkeypatch.setattr("os.replace", raise_full)
    with pytest.raises(OSError, match="disk full"):
        report.write_atomically(path, "after")
    assert path.read_text() == "before"


def test_every_study_has_the_common_options():
    for name, entry in command.STUDIES.items():
        study = importlib.import_module(f"experiments.{entry.module}")
        assert issubclass(study.Config, Study), name
        assert study.Config.QUICK, name
        fields = {field.name for field in dataclasses.fields(study.Config)}
        assert set(study.Config.QUICK) <= fields, name


def test_the_command_lists_studies_and_says_what_is_wrong(capsys):
    for arguments in ([], ["--help"]):
        assert command.main(arguments) == 0
        said = capsys.readouterr().out
        assert all(f"\n  {name} " in said for name in command.STUDIES)
    assert command.main(["atractor"]) == 2
    assert "Did you mean 'attractor'?" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        command.main(["attractor", "--hiden", "3"])
    assert left.value.code == 2
    assert "--hidden" in capsys.readouterr().err


def test_the_command_turns_a_data_error_into_a_message(capsys, tmp_path):
    (tmp_path / "results.jsonl").write_text("")
    assert command.main(["pod", "--out", str(tmp_path)]) == 1
    assert "holds results already" in capsys.readouterr().err
