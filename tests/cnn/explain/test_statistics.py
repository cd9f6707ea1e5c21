"""Sums over a stream of activations give the figures that their formulas give at once."""

import pickle
from typing import Any

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from cnn.explain.activations import Batch
from cnn.explain.statistics import ActivationStats, Correlation

Values = NDArray[np.float32]

LEVELS = np.array([0.5, 0.9, 0.99])
PRECISION = 1 + 1 / 128


def _activity(
    values: Values, labels: Any = None, lengths: list[int] | None = None
) -> ActivationStats:
    """Return what an Activity of three classes knows of values that come in these batches."""
    labels = np.arange(len(values)) % 3 if labels is None else np.array(labels)
    found = ActivationStats(values.shape[-1], 3)
    start = 0
    for n in lengths or [len(values)]:
        part = values[start : start + n]
        found.add(Batch(start, part, part.max(axis=(1, 2))), labels[start : start + n])
        start += n
    assert start == len(values), "the batches are not all of the values"
    return found


@pytest.fixture
def values(rng: np.random.Generator) -> Values:
    """Activations of 40 images, 5 filters: the first is dead, the others differ in scale."""
    drawn = rng.normal(-0.5, 1, (40, 6, 7, 5)) * [1, 1e-3, 1, 50, 1e4]
    drawn[..., 0] = 0
    return np.maximum(drawn, 0).astype(np.float32)


# All floats that can be activations, many of them equal, tiny or huge.
ACTIVATIONS = st.one_of(
    st.just(np.float32(0)), st.floats(0, 2.0**100, width=32), st.sampled_from([0.5, 1.0, 1e-42])
)


@settings(max_examples=200, deadline=None)
@given(st_numpy.arrays(np.float32, (3, 2, 4, 2), elements=ACTIVATIONS))
def test_quantiles_are_those_of_a_sort_or_up_to_a_128th_larger(drawn: Values) -> None:
    """Of all positions, silent ones among them; never above the largest activation."""
    found = _activity(drawn).quantiles(LEVELS)
    flat = np.float64(drawn).reshape(-1, 2)
    exact = np.quantile(flat, LEVELS, axis=0, method="inverted_cdf").T
    assert (found >= exact).all()
    assert (found <= exact * PRECISION + 1e-40).all()
    assert (found <= flat.max(axis=0)[:, None]).all()


def test_quantiles_need_no_more_than_the_share_they_are_named_for() -> None:
    """Of ten positions, nine with 1 and one with 2, the ninetieth percentile is 1."""
    drawn = np.ones((10, 1, 1, 1), np.float32)
    drawn[3] = 2
    assert _activity(drawn).quantiles(np.array([0.1, 0.9, 0.91])).tolist() == [[1, 1, 2]]


@settings(max_examples=200, deadline=None)
@given(st_numpy.arrays(np.float32, (3, 2, 4, 2), elements=ACTIVATIONS), st.integers(1, 30))
def test_the_histogram_counts_every_position_that_fires_once(drawn: Values, n_bins: int) -> None:
    """In bins of one width up to the largest; a count is late by the precision at most."""
    found = _activity(drawn).histogram(n_bins)
    assert (found.shape, found.dtype) == ((2, n_bins), np.int64)
    for counts, of_filter in zip(found, np.float64(drawn).reshape(-1, 2).T, strict=True):
        fires = of_filter[of_filter > 0]
        assert counts.sum() == len(fires)
        for i, up_to in enumerate(counts.cumsum()[:-1], start=1):
            edge = fires.max() * (i / n_bins) if len(fires) else 0
            assert (fires <= (edge / PRECISION - 1e-40) * (1 - 1e-12)).sum() <= up_to
            assert up_to <= (fires <= edge * (1 + 1e-12)).sum()


def test_bins_of_the_histogram_have_one_width(rng: np.random.Generator) -> None:
    """Ten activations in the middle of each of twenty bins."""
    middles = np.repeat(np.arange(20) + 0.5, 10)
    drawn = rng.permutation(np.append(middles, 20)).astype(np.float32).reshape(-1, 1, 1, 1)
    assert _activity(drawn).histogram(20).tolist() == [[10] * 19 + [11]]


def test_responses_and_sparsity_follow_their_formulas(values: Values) -> None:
    """Vinje and Gallant 2000 over images for each filter, and over filters for each image."""
    found = _activity(values)
    of_images = np.float64(values).mean(axis=(1, 2))
    for label in range(3):
        np.testing.assert_allclose(found.class_means[label], of_images[label::3].mean(axis=0))
    np.testing.assert_allclose(found.mean_response, of_images.mean(axis=0))
    np.testing.assert_allclose(found.fraction_active, (values > 0).mean(axis=(0, 1, 2)))
    np.testing.assert_array_equal(found.largest, values.max(axis=(0, 1, 2)))
    assert np.isnan(found.lifetime_sparsity[0])
    for i in range(1, 5):
        assert found.lifetime_sparsity[i] == pytest.approx(_sparseness(of_images[:, i]))
    wanted = np.mean([_sparseness(responses) for responses in of_images])
    assert found.population_sparsity == pytest.approx(wanted)


def _sparseness(responses: NDArray[np.float64]) -> float:
    """Return (1 - (sum r/n)^2 / sum(r^2/n)) / (1 - 1/n)."""
    n = len(responses)
    return float((1 - (responses.sum() / n) ** 2 / (responses**2 / n).sum()) / (1 - 1 / n))


def test_images_that_no_filter_responds_to_do_not_count_as_unspecific(values: Values) -> None:
    """The mean is over the others; without others, or with one filter, there is none."""
    half = values[:20]
    dark = np.concatenate([half, np.zeros_like(half)])
    found = _activity(dark, np.zeros(40, int)).population_sparsity
    assert found == pytest.approx(_activity(half, np.zeros(20, int)).population_sparsity)
    assert np.isnan(_activity(np.zeros_like(half)).population_sparsity)
    assert np.isnan(_activity(half[..., 3:4]).population_sparsity)


def test_activations_below_zero_count_as_zero(values: Values) -> None:
    """Of a layer without ReLU nothing else is known of them."""
    without = np.where(values > 0, values, -3).astype(np.float32)
    found, wanted = _activity(without), _activity(values)
    assert _figures(found)[1] == _figures(wanted)[1]
    np.testing.assert_array_equal(_figures(found)[0], _figures(wanted)[0])


def _figures(activity: ActivationStats) -> tuple[NDArray[np.float64], list[Any]]:
    """Return what is summed in some order, and what is counted."""
    summed = (
        activity.class_means,
        activity.mean_response,
        activity.lifetime_sparsity,
        np.array(activity.population_sparsity),
        activity.correlation.correlations(),
    )
    counted = (
        activity.fraction_active,
        activity.largest,
        activity.quantiles(LEVELS),
        activity.histogram(20),
    )
    return np.concatenate([part.ravel() for part in summed]), [part.tolist() for part in counted]


@pytest.mark.parametrize("lengths", [[1] * 40, [39, 1], [1, 39], [13, 14, 13]])
def test_any_cut_into_batches_gives_the_same(values: Values, lengths: list[int]) -> None:
    """Counts exactly, sums up to the order in which they were added."""
    summed, counted = _figures(_activity(values, lengths=lengths))
    wanted_sums, wanted_counts = _figures(_activity(values))
    assert counted == wanted_counts
    np.testing.assert_allclose(summed, wanted_sums, rtol=1e-12)


def test_what_is_kept_does_not_grow_with_the_number_of_images(rng: np.random.Generator) -> None:
    """30 batches leave as much in memory as one."""
    drawn = rng.uniform(0, 1, (300, 4, 4, 3)).astype(np.float32)
    one, many = _activity(drawn[:10]), _activity(drawn, lengths=[10] * 30)
    assert abs(len(pickle.dumps(many)) - len(pickle.dumps(one))) < 100


def test_large_batches_are_taken_in_parts(rng: np.random.Generator) -> None:
    """More activations than are counted at once: none is left out or counted twice."""
    drawn = rng.normal(0, 1, (70, 64, 64, 4)).astype(np.float32)
    assert drawn.size > 1 << 20
    found = _activity(drawn)
    assert found.n_positions == 70 * 64 * 64
    fires = (drawn > 0).sum(axis=(0, 1, 2))
    np.testing.assert_array_equal(found.histogram(20).sum(axis=1), fires)
    means = np.maximum(np.float64(drawn), 0).mean(axis=(1, 2))
    for label in range(3):
        np.testing.assert_allclose(found.class_means[label], means[label::3].mean(axis=0))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_figures_without_a_unit_do_not_depend_on_the_scale(values: Values, scale: float) -> None:
    """Squares of such activations are no float32; those with a unit scale along."""
    small, large = _activity(values), _activity(values * np.float32(scale))
    np.testing.assert_allclose(large.lifetime_sparsity, small.lifetime_sparsity, rtol=1e-5)
    np.testing.assert_allclose(
        large.correlation.correlations(), small.correlation.correlations(), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(large.mean_response, small.mean_response * scale, rtol=1e-5)
    np.testing.assert_array_equal(large.fraction_active, small.fraction_active)


def test_the_largest_and_the_smallest_floats_are_counted() -> None:
    """A filter that fires by a denormal fires; the largest quantile of all is finite."""
    drawn = np.zeros((4, 1, 1, 2), np.float32)
    drawn[1:, 0, 0, 0] = np.float32(1e-45)
    drawn[1:, 0, 0, 1] = np.finfo(np.float32).max
    found = _activity(drawn)
    assert found.fraction_active.tolist() == [0.75, 0.75]
    assert found.histogram(2).tolist() == [[0, 3], [0, 3]]
    np.testing.assert_array_equal(found.quantiles(np.array([0.2, 0.9])).T, drawn[:2, 0, 0])


def _flat(rng: np.random.Generator) -> Values:
    """Return activations (positions, filters): 1 is 0 scaled; 2 their sum and more; 3 alone."""
    drawn = np.maximum(rng.normal(0, 1, (5000, 4)), 0)
    drawn[:, 1] = 7 * drawn[:, 0]
    drawn[:, 2] += drawn[:, 0]
    return drawn.astype(np.float32)


def test_correlations_are_pearsons(rng: np.random.Generator) -> None:
    """As numpy.corrcoef gives them for all positions at once; scaled copies have 1."""
    drawn = _flat(rng)
    found = Correlation()
    for part in np.array_split(drawn, 7):
        found.add(part, part)
    np.testing.assert_allclose(found.correlations(), np.corrcoef(np.float64(drawn).T), atol=1e-12)
    assert found.correlations()[0, 1] == pytest.approx(1, abs=1e-7)
    assert found.correlations().max() <= 1


def test_correlations_of_two_sets_are_pearsons(rng: np.random.Generator) -> None:
    """Rows are filters of the first set, columns those of the other."""
    one, other = _flat(rng)[:, :3], -_flat(rng) + 5
    found = Correlation()
    for start in (0, 1, 2000):
        part = slice(start, {0: 1, 1: 2000, 2000: 5000}[start])
        found.add(one[part], other[part])
    wanted = np.corrcoef(np.float64(one).T, np.float64(other).T)[:3, 3:]
    assert found.correlations().shape == (3, 4)
    np.testing.assert_allclose(found.correlations(), wanted, atol=1e-12)


def test_a_large_mean_costs_no_digits(rng: np.random.Generator) -> None:
    """Filters that are always on, at 1000, and vary by a hundredth; the first value is far off."""
    drawn = (1000 + 0.01 * rng.normal(0, 1, (5000, 2))).astype(np.float32)
    drawn[0] = 0
    found = Correlation()
    for part in np.array_split(drawn, 5):
        found.add(part, part)
    np.testing.assert_allclose(found.correlations(), np.corrcoef(np.float64(drawn).T), rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e30])
def test_a_constant_filter_correlates_with_nothing(rng: np.random.Generator, value: float) -> None:
    """Not with itself, nor by rounding with any other."""
    drawn = _flat(rng)
    drawn[:, 3] = value
    found = Correlation()
    for part in np.array_split(drawn, 7):
        found.add(part, part)
    correlations = found.correlations()
    assert np.isnan(correlations[3]).all()
    assert np.isnan(correlations[:, 3]).all()
    assert np.isfinite(correlations[:3, :3]).all()


def test_correlations_do_not_depend_on_the_number_of_threads(rng: np.random.Generator) -> None:
    """Two sets at the 81,000 positions of a batch: the last digit stays with more threads."""
    drawn = np.maximum(rng.normal(0, 1, (81_000, 64)), 0).astype(np.float32)
    found = []
    for n_threads in (1, 2):
        correlation = Correlation()
        with threadpoolctl.threadpool_limits(n_threads, user_api="blas"):
            correlation.add(drawn, drawn[:, ::-1])
        found.append(correlation.correlations().tobytes())
    assert found[0] == found[1]
