"""The gate's checks, from hits alone."""

from collections.abc import Iterator
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn.config.run import GateConfig
from cnn.evaluate import paired
from cnn.promotion import gate

N = 5000
NAMES = tuple("0123456789")
LIMITS = GateConfig()


def hits(n: int, n_wrong: int) -> gate.Hits:
    """Return n images of which the first so many are wrong."""
    return np.arange(n) >= n_wrong


def labels(n: int) -> np.ndarray:
    return np.arange(n) % 10


def outcome(ours: gate.Hits, theirs: gate.Hits, limits: GateConfig = LIMITS) -> dict[str, bool]:
    checks, _ = gate.comparison(labels(len(ours)), ours, theirs, NAMES, limits)
    return {check.name: check.passed for check in checks}


@given(st.integers(0, 60), st.integers(0, 60))
def test_p_is_that_of_the_binomial_distribution(n_gained: int, n_lost: int) -> None:
    """Two-sided and exact: all outcomes that are no more likely than what was found."""
    theirs = np.ones(200, bool)
    theirs[:n_gained] = False
    ours = np.ones(200, bool)
    ours[n_gained : n_gained + n_lost] = False
    n = n_gained + n_lost
    weights = [comb(n, k) for k in range(n + 1)]
    expected = sum(w for w in weights if w <= weights[n_gained]) / 2**n
    found = paired.difference(ours, theirs)
    assert (found.n_gained, found.n_lost, found.n) == (n_gained, n_lost, 200)
    assert found.p == pytest.approx(expected, rel=1e-9)
    assert found.low <= found.mean <= found.high


@given(st.integers(1, 40), st.integers(1, 40))
def test_the_interval_s_ends_are_where_the_tail_is_a_fortieth(n_gained: int, n_lost: int) -> None:
    """Clopper and Pearson: at its ends what was found, or more, has a chance of 2.5 %."""
    theirs = np.ones(200, bool)
    theirs[:n_gained] = False
    ours = np.ones(200, bool)
    ours[n_gained : n_gained + n_lost] = False
    n, found = n_gained + n_lost, paired.difference(ours, theirs)

    def tail(share: float, wanted: Iterator[int]) -> float:
        return sum(comb(n, k) * share**k * (1 - share) ** (n - k) for k in wanted)

    low, high = ((end * 200 / n + 1) / 2 for end in (found.low, found.high))
    assert tail(low, iter(range(n_gained, n + 1))) == pytest.approx(0.025, rel=1e-6)
    assert tail(high, iter(range(n_gained + 1))) == pytest.approx(0.025, rel=1e-6)


def test_models_that_agree_on_every_image_are_equal() -> None:
    """p is 1 and the interval is 0 to 0, however few images there are."""
    found = paired.difference(hits(128, 3), hits(128, 3))
    assert (found.p, found.low, found.high) == (1.0, 0.0, 0.0)
    assert all(outcome(hits(128, 3), hits(128, 3)).values())


@pytest.mark.parametrize(
    ("n_wrong", "failing"),
    [
        (0, set()),  # better
        (80, set()),  # equal
        (83, set()),  # three images lost: chance
        (86, {"McNemar test"}),  # p = 0.03, within the margin
        (140, {"McNemar test", "accuracy drop"}),
    ],
)
def test_what_is_lost_decides(n_wrong: int, failing: set[str]) -> None:
    """Of 5,000 images, beside a model that is wrong on the first 80."""
    found = outcome(hits(N, n_wrong), hits(N, 80))
    assert {name for name, passed in found.items() if not passed} == failing


def test_too_few_images_to_tell_do_not_pass() -> None:
    """One image lost and one gained of 128 may be a loss of 1.5 points: over the margin."""
    theirs, ours = np.ones(128, bool), np.ones(128, bool)
    theirs[0] = ours[10] = False
    checks, _ = gate.comparison(labels(128), ours, theirs, NAMES, LIMITS)
    (check,) = (check for check in checks if not check.passed)
    assert check.name == "accuracy drop"
    assert check.found.endswith(" points: too few images")
    assert outcome(ours, theirs, GateConfig(max_accuracy_drop=0.03))["accuracy drop"]


def test_a_class_that_is_lost_is_named() -> None:
    """Though the accuracy is the same: what is lost in one class is gained in the others."""
    theirs, ours = np.ones(N, bool), np.ones(N, bool)
    ours[np.flatnonzero(labels(N) == 7)[:30]] = False
    theirs[np.flatnonzero(labels(N) == 2)[:30]] = False
    checks, figures = gate.comparison(labels(N), ours, theirs, NAMES, LIMITS)
    lost = checks[-1]
    assert (lost.name, lost.passed) == ("class recall drop", False)
    assert lost.found == "7: \N{MINUS SIGN}6.00 points, the largest loss"
    assert figures["difference"] == 0


def test_the_floor_names_accuracy_and_the_weakest_class() -> None:
    """At the limit passes, below fails."""
    right = np.ones(100, bool)
    right[labels(100) == 3] = False
    accuracy, recall = gate.floor(labels(100), right, NAMES, LIMITS)
    assert (accuracy.passed, accuracy.found) == (True, "90.00 % of 100 images")
    assert (recall.passed, recall.found) == (False, "3: 0.00 %, the lowest")
    right[labels(100) == 4] = False
    assert not gate.floor(labels(100), right, NAMES, LIMITS)[0].passed


def test_a_class_without_images_does_not_count() -> None:
    """Neither for the floor nor for what is lost."""
    some = labels(100)[labels(100) != 9]
    right = np.ones(len(some), bool)
    assert all(check.passed for check in gate.floor(some, right, NAMES, LIMITS))
    checks, _ = gate.comparison(some, right, right, NAMES, LIMITS)
    assert all(check.passed for check in checks)


def test_no_validation_images_promote_nothing() -> None:
    """There is nothing to decide by."""
    (check,) = gate.floor(labels(0), hits(0, 0), NAMES, LIMITS)
    assert (check.name, check.passed) == ("validation images", False)


def test_limits_that_are_not_set_are_no_checks() -> None:
    """Size and time count only where somebody said so; the limit itself passes."""
    assert gate.at_most("size", 5, None, "MB") == []
    assert gate.at_most("size", 5, 5, "MB")[0].passed
    assert not gate.at_most("size", 5.01, 5, "MB")[0].passed
