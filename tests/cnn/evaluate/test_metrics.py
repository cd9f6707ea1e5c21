"""Metrics against published values, scikit-learn and plain loops."""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from cnn.evaluate import metrics

COUNTS = st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("n_correct", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_has_the_published_values(
    n_correct: int, n: int, low: float, high: float
) -> None:
    """Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, 3."""
    assert metrics.wilson(n_correct, n) == (
        pytest.approx(low, abs=5e-5),
        pytest.approx(high, abs=5e-5),
    )


@given(COUNTS)
def test_the_ends_are_the_roots_of_the_score_equation(counts: tuple[int, int]) -> None:
    """At both ends the observed share is 1.96 standard errors away (Wilson 1927)."""
    n_correct, n = counts
    z, share = stats.norm.ppf(0.975), n_correct / n
    for end in metrics.wilson(n_correct, n):
        assert n * (share - end) ** 2 == pytest.approx(z**2 * end * (1 - end), rel=1e-6, abs=1e-9)


@given(COUNTS)
def test_the_interval_holds_the_share_and_stays_within_0_and_1(counts: tuple[int, int]) -> None:
    """Also if none or all are right; it is never a single point."""
    n_correct, n = counts
    low, high = metrics.wilson(n_correct, n)
    assert 0 <= low <= n_correct / n <= high <= 1
    assert low < high


@st.composite
def _labelled(draw: st.DrawFn) -> tuple[int, list[int], list[int]]:
    n_classes = draw(st.integers(2, 6))
    classes = st.integers(0, n_classes - 1)
    pairs = draw(st.lists(st.tuples(classes, classes), min_size=1, max_size=40))
    labels, predictions = zip(*pairs, strict=True)
    return n_classes, list(labels), list(predictions)


@given(_labelled())
def test_counts_and_scores_equal_those_of_scikit_learn(
    drawn: tuple[int, list[int], list[int]],
) -> None:
    """Confusion, precision, recall, f1 and support; undefined scores are NaN, not 0."""
    n_classes, labels, predictions = drawn
    counts = metrics.confusion(np.array(labels), np.array(predictions), n_classes)
    classes = list(range(n_classes))
    np.testing.assert_array_equal(
        counts, sklearn_metrics.confusion_matrix(labels, predictions, labels=classes)
    )
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        labels, predictions, labels=classes, zero_division=np.nan
    )
    scores = metrics.scores(counts)
    np.testing.assert_array_equal(scores.support, support)
    np.testing.assert_allclose(scores.precision, precision)
    np.testing.assert_allclose(scores.recall, recall)
    np.testing.assert_allclose(scores.f1, f1)


def _naive(
    probability: Sequence[float], correct: Sequence[bool], n_bins: int
) -> tuple[list[int], float]:
    """Return each bin's count and the expected calibration error, by plain loops."""
    bins: list[list[int]] = [[] for _ in range(n_bins)]
    for i, value in enumerate(probability):
        bins[max(ceil(Fraction(value) * n_bins) - 1, 0)].append(i)
    error = 0.0
    for members in filter(None, bins):
        accuracy = sum(correct[i] for i in members) / len(members)
        confidence = sum(probability[i] for i in members) / len(members)
        error += len(members) / len(probability) * abs(accuracy - confidence)
    return [len(members) for members in bins], error


EDGES = st.sampled_from([i / 16 for i in range(17)])  # exact in binary


@given(
    st.lists(st.tuples(st.one_of(st.floats(0, 1), EDGES), st.booleans()), min_size=1, max_size=60),
    st.sampled_from([1, 2, 4, 8, 16]),
)
def test_calibration_equals_a_plain_loop(drawn: list[tuple[float, bool]], n_bins: int) -> None:
    """Counts of each bin (low, high] and the error, with values on the edges too."""
    probability, correct = zip(*drawn, strict=True)
    found = metrics.calibration(np.array(probability), np.array(correct), n_bins)
    counts, error = _naive(probability, correct, n_bins)
    assert found.n.tolist() == counts
    assert found.expected_error == pytest.approx(error, abs=1e-12)
    assert found.n_correct.sum() == sum(correct)
    np.testing.assert_array_equal(found.edges, np.linspace(0, 1, n_bins + 1))


def test_an_empty_bin_has_no_accuracy() -> None:
    """Two images in the bins of 0.3 and 0.9 leave the other two undefined, not 0."""
    found = metrics.calibration(np.array([0.3, 0.9]), np.array([False, True]), 4)
    np.testing.assert_array_equal(found.accuracy, [np.nan, 0, np.nan, 1])
    np.testing.assert_array_equal(found.mean_probability, [np.nan, 0.3, np.nan, 0.9])
    assert found.expected_error == pytest.approx((0.3 + 0.1) / 2)
