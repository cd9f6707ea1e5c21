"""The gate's checks, computed from hits alone."""

import numpy as np
import pytest

from cnn.config.run import GateConfig
from cnn.promotion import gate
from cnn.runs.records import Check

N = 5000
NAMES = tuple("0123456789")
LIMITS = GateConfig()


def labels(n: int) -> np.ndarray:
    return np.arange(n) % 10


def hits(n: int, wrong: np.ndarray) -> gate.Hits:
    """Return the hits of n images of which all are right except those in `wrong`."""
    right = np.ones(n, bool)
    right[wrong] = False
    return right


def failing(ours: gate.Hits, theirs: gate.Hits, limits: GateConfig = LIMITS) -> dict[str, Check]:
    checks, _ = gate.comparison(labels(len(ours)), ours, theirs, NAMES, limits)
    return {check.name: check for check in checks if not check.passed}


@pytest.mark.parametrize(
    ("n_wrong", "expected"),
    [
        (0, set()),  # better
        (80, set()),  # equal
        (83, set()),  # three images lost, which may be chance
        (86, {"McNemar test"}),  # p = 0.03, but within the accepted drop
        (140, {"McNemar test", "accuracy drop"}),
    ],
)
def test_a_significant_loss_or_a_large_one_fails(n_wrong: int, expected: set[str]) -> None:
    """Of 5,000 images, compared with a model that is wrong on the first 80."""
    ours, theirs = hits(N, np.arange(n_wrong)), hits(N, np.arange(80))
    assert failing(ours, theirs).keys() == expected


def test_too_few_images_to_exclude_a_loss_fail() -> None:
    """With one image lost and one gained of 128, a loss of 1.5 points is possible."""
    ours, theirs = hits(128, np.array([10])), hits(128, np.array([0]))
    (check,) = failing(ours, theirs).values()
    assert check.name == "accuracy drop"
    assert check.found.endswith(" points: too few images")
    assert not failing(ours, theirs, GateConfig(max_accuracy_drop=0.03))
    assert not failing(ours, ours)


def test_a_loss_in_one_class_fails_even_if_the_accuracy_is_the_same() -> None:
    """The check names the class."""
    ours = hits(N, np.flatnonzero(labels(N) == 7)[:30])
    theirs = hits(N, np.flatnonzero(labels(N) == 2)[:30])
    checks, figures = gate.comparison(labels(N), ours, theirs, NAMES, LIMITS)
    assert (checks[-1].name, checks[-1].passed) == ("class recall drop", False)
    assert checks[-1].found == "7: \N{MINUS SIGN}6.00 points, the largest loss"
    assert figures["difference"] == 0


def test_the_minimum_applies_to_the_accuracy_and_the_lowest_recall() -> None:
    """A value at the limit passes."""
    right = hits(100, labels(100) == 3)
    accuracy, recall = gate.floor(labels(100), right, NAMES, LIMITS)
    assert (accuracy.passed, accuracy.found) == (True, "90.00 % of 100 images")
    assert (recall.passed, recall.found) == (False, "3: 0.00 %, the lowest")
    right[labels(100) == 4] = False
    assert not gate.floor(labels(100), right, NAMES, LIMITS)[0].passed


def test_a_class_without_images_is_ignored() -> None:
    """In the minimum and in the comparison."""
    some = labels(100)[labels(100) != 9]
    right = np.ones(len(some), bool)
    checks, _ = gate.comparison(some, right, right, NAMES, LIMITS)
    assert all(check.passed for check in [*checks, *gate.floor(some, right, NAMES, LIMITS)])


def test_no_validation_images_fail() -> None:
    """There is nothing to decide by."""
    (check,) = gate.floor(labels(0), np.ones(0, bool), NAMES, LIMITS)
    assert (check.name, check.passed) == ("validation images", False)


def test_size_and_time_are_checked_only_against_a_limit() -> None:
    """A value at the limit passes."""
    assert gate.at_most("size", 5, None, "MB") == []
    assert gate.at_most("size", 5, 5, "MB")[0].passed
    assert not gate.at_most("size", 5.01, 5, "MB")[0].passed
