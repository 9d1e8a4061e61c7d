"""Tests of conclusions: what is called best, and what is called no difference."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments import report

HIGH = {"higher_is_better": True, "unit": " %"}


def test_intervals_are_student_s():
    values = [91.0, 92.5, 93.0, 90.5]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = report.interval(values)
    assert (found.low, found.mean, found.high) == pytest.approx((low, 91.75, high))


def test_overlapping_intervals_are_no_difference():
    scores = {"adam": [92.0, 92.8, 91.6], "sgd": [92.2, 92.0, 91.8]}
    said = report.verdict("accuracy", scores, **HIGH)
    assert (
        said == "No difference in accuracy: the 95 % intervals of adam and sgd overlap."
    )
    assert "est" not in said.split(":")[0]


def test_a_clear_difference_is_said_with_its_numbers():
    scores = {"bptt": [99.5, 100.0, 99.8], "truncated": [50.0, 49.0, 51.0]}
    said = report.verdict("accuracy", scores, limits=(0, 100), **HIGH)
    assert said.startswith("Highest accuracy: bptt (99.8 %, interval 99.1 to 100 %). ")
    assert said.endswith("Lower: truncated (50 %).")
    said = report.verdict("loss", scores, higher_is_better=False)
    assert said.startswith("Lowest loss: truncated (50, interval")
    assert said.endswith("Higher: bptt (99.8).")


def test_the_best_and_its_equals():
    scores = {
        "a": [90, 91, 92],
        "b": [90, 91, 91.5],
        "c": [10, 11, 12],
        "d": [1, np.nan],
    }
    best, worse, failed = report.best_of(scores, higher_is_better=True)
    assert (best, worse, failed) == (["a", "b"], ["c"], ["d"])
    said = report.verdict("score", scores, higher_is_better=True)
    assert "no difference from b, as 95 % intervals overlap" in said
    assert said.endswith("Lower: c (11). Not finite: d.")


def test_one_seed_says_nothing_about_differences():
    said = report.verdict("accuracy", {"a": [99.0], "b": [1.0]}, **HIGH)
    assert said.startswith("One seed: no statement about differences in accuracy")
    assert report.interval([3.0]) == (-math.inf, 3.0, math.inf)


def test_equal_seeds_have_an_interval_of_no_width():
    said = report.verdict("accuracy", {"a": [100, 100], "b": [50, 50]}, **HIGH)
    assert said == "Highest accuracy: a (100 %, with every seed). Lower: b (50 %)."
    said = report.verdict("accuracy", {"a": [100, 100], "b": [100, 100]}, **HIGH)
    assert said.startswith("No difference")


def test_when_everything_diverged():
    said = report.verdict("loss", {"a": [np.nan, 1.0]}, higher_is_better=False)
    assert said == "Not finite: a."


def test_many_equals_are_counted():
    scores = {f"rule {i}": [1.0 + i / 100, 2.0, 3.0] for i in range(9)}
    said = report.verdict("loss", scores, higher_is_better=False)
    assert said == "No difference in loss: the 95 % intervals of all 9 overlap."
    said = report.verdict("loss", scores | {"x": [90, 91, 92]}, higher_is_better=False)
    assert "no difference from 8 of the 9 others" in said
    far = {f"far {i}": [90 + i, 91 + i, 92 + i] for i in range(5)}
    said = report.verdict("loss", scores | far, higher_is_better=False)
    assert said.endswith("Higher: the other 5, from far 0 (91) to far 4 (95).")


def test_scores_are_compared_with_a_baseline():
    scores = {"a": [91.0, 92.0, 93.0], "b": [80.0, 90.0, 85.0], "c": [1.0, 2.0, 3.0]}
    said = report.against("guessing", 85.0, scores, **HIGH)
    assert said == (
        "Better than guessing (85 %): a (by 4.52 to 9.48 points). No difference from "
        "guessing: b. Worse than guessing: c (by 80.5 to 85.5 points)."
    )
    alone = {"a": scores["a"], "d": [90.0, 91.0]}
    said = report.against("guessing", 50.0, alone, **HIGH)
    assert said == "All scores are better than guessing (50 %)."
    said = report.against("guessing", 50.0, {"b": [45.0, 55.0]}, **HIGH)
    assert said == "No difference from guessing (50 %): b."


def test_differences_are_paired_by_seed():
    """Seeds differ much more than the two methods do."""
    one, other = [1.0, 50.0, 90.0], [2.0, 51.1, 90.9]
    said = report.against("x", {"a": other}, {"a": one}, higher_is_better=False)
    assert said == "Better than x: a (by 0.752 to 1.25)."
    assert report.interval(one).overlaps(report.interval(other))
    said = report.against("x", {"a": 47.0}, {"a": one}, higher_is_better=False)
    assert said == "No difference from x: a."


def test_what_cannot_be_compared_with_a_baseline():
    scores = {"one seed": [5.0], "diverged": [np.nan, 1.0]}
    assert report.against("x", 0.0, scores, higher_is_better=True) == ""


def test_many_names_are_counted_beside_a_baseline():
    scores = {f"m{i}": [float(i), i + 0.01] for i in range(1, 6)}
    said = report.against("x", 3.505, scores, higher_is_better=True)
    assert said.startswith("Better than x (3.5): m4 (by ")
    assert said.endswith("Worse than x: m1 (by 2.44 to 2.56), m2 (by 1.44 to 1.56) and "
                         "m3 (by 0.436 to 0.564).")  # fmt: skip
    said = report.against("x", 1.5, scores, higher_is_better=True)
    assert said == (
        "Better than x (1.5): 4 of 5 scores, by 0.505 to 3.5. "
        "Worse than x: m1 (by 0.431 to 0.559)."
    )
