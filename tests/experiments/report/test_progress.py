"""Tests of progress: a log file gets lines, and not too many."""

import re

from experiments import report
from experiments.report import _progress


def run(jobs, steps):
    with report.Progress(jobs) as progress:
        for job in range(jobs):
            progress.begin(f"job {job}", steps)
            for step in range(1, steps + 1):
                progress.advance(step)


def test_a_log_has_lines_of_progress(capsys, monkeypatch):
    monkeypatch.setattr(_progress, "SECONDS", 0.0)
    run(2, 3)
    lines = capsys.readouterr().err.splitlines()
    assert all(re.match(r"\[\d+:\d\d\] ", line) for line in lines)
    assert [line.split("] ", 1)[1] for line in lines] == [
        "job 1 of 2: job 0, begins",
        *(f"job 1 of 2: job 0, {step} of 3 steps" for step in (1, 2, 3)),
        "job 2 of 2: job 1, begins",
        *(f"job 2 of 2: job 1, {step} of 3 steps" for step in (1, 2, 3)),
        "2 of 2 jobs done",
    ]


def test_a_log_has_one_line_in_ten_seconds(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    with report.Progress(1) as progress:
        progress.begin("long", 100)
        for step in range(1, 101):
            now[0] += 1.0
            progress.advance(step)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 + 10 + 1
    assert lines[1] == "[0:10] job 1 of 1: long, 10 of 100 steps"
    assert lines[-1] == "[1:40] 1 of 1 jobs done"


def test_a_log_says_where_it_stopped(capsys):
    try:
        with report.Progress(3) as progress:
            progress.begin("first", 1)
            progress.begin("second", 1)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert "stopped in job 2 of 3: second" in capsys.readouterr().err
