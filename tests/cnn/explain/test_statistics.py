"""Running sums over batches give the statistics that the formulas give for all images at once."""

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
from tests.cnn.explain import oracle

Values = NDArray[np.float32]

LEVELS = np.array([0.5, 0.9, 0.99])
PRECISION = 1 + 1 / 128


def _stats(values: Values, labels: Any = None, lengths: list[int] | None = None) -> ActivationStats:
    """Return the statistics, over three classes, of activations in batches of these lengths."""
    labels = np.arange(len(values)) % 3 if labels is None else np.array(labels)
    found = ActivationStats(values.shape[-1], 3)
    start = 0
    for n in lengths or [len(values)]:
        part = values[start : start + n]
        found.add(Batch(start, part, part.max(axis=(1, 2))), labels[start : start + n])
        start += n
    assert start == len(values), "the batches do not cover all values"
    return found


@pytest.fixture
def values(rng: np.random.Generator) -> Values:
    """Activations of 40 images, 5 filters: the first is dead, the others differ in scale."""
    drawn = rng.normal(-0.5, 1, (40, 6, 7, 5)) * [1, 1e-3, 1, 50, 1e4]
    drawn[..., 0] = 0
    return np.maximum(drawn, 0).astype(np.float32)


# Any float that can be an activation; many are equal, tiny or huge.
ACTIVATIONS = st.one_of(
    st.just(np.float32(0)), st.floats(0, 2.0**100, width=32), st.sampled_from([0.5, 1.0, 1e-42])
)


@settings(max_examples=200, deadline=None)
@given(st_numpy.arrays(np.float32, (3, 2, 4, 2), elements=ACTIVATIONS))
def test_quantiles_are_those_of_a_sort_or_up_to_a_128th_larger(drawn: Values) -> None:
    """Of all positions, those that do not fire included; never above the largest activation."""
    found = _stats(drawn).quantiles(LEVELS)
    flat = np.float64(drawn).reshape(-1, 2)
    exact = np.quantile(flat, LEVELS, axis=0, method="inverted_cdf").T
    assert (found >= exact).all()
    assert (found <= exact * PRECISION + 1e-40).all()
    assert (found <= flat.max(axis=0)[:, None]).all()


def test_a_quantile_is_reached_by_exactly_its_share_of_the_positions() -> None:
    """Of ten positions, nine with 1 and one with 2, the 90th percentile is 1."""
    drawn = np.ones((10, 1, 1, 1), np.float32)
    drawn[3] = 2
    assert _stats(drawn).quantiles(np.array([0.1, 0.9, 0.91])).tolist() == [[1, 1, 2]]


@settings(max_examples=200, deadline=None)
@given(st_numpy.arrays(np.float32, (3, 2, 4, 2), elements=ACTIVATIONS), st.integers(1, 30))
def test_the_histogram_counts_every_position_that_fires_once(drawn: Values, n_bins: int) -> None:
    """In equal bins up to the largest activation; edges are exact to 1/128."""
    found = _stats(drawn).histogram(n_bins)
    assert (found.shape, found.dtype) == ((2, n_bins), np.int64)
    for counts, of_filter in zip(found, np.float64(drawn).reshape(-1, 2).T, strict=True):
        fires = of_filter[of_filter > 0]
        assert counts.sum() == len(fires)
        for i, up_to in enumerate(counts.cumsum()[:-1], start=1):
            edge = fires.max() * (i / n_bins) if len(fires) else 0
            assert (fires <= (edge / PRECISION - 1e-40) * (1 - 1e-12)).sum() <= up_to
            assert up_to <= (fires <= edge * (1 + 1e-12)).sum()


def test_responses_and_sparsity_follow_their_formulas(values: Values) -> None:
    """Vinje and Gallant 2000 over images for each filter, and over filters for each image."""
    found = _stats(values)
    of_images = np.float64(values).mean(axis=(1, 2))
    for label in range(3):
        np.testing.assert_allclose(found.class_means[label], of_images[label::3].mean(axis=0))
    np.testing.assert_allclose(found.mean_response, of_images.mean(axis=0))
    np.testing.assert_allclose(found.fraction_active, (values > 0).mean(axis=(0, 1, 2)))
    np.testing.assert_array_equal(found.largest, values.max(axis=(0, 1, 2)))
    assert np.isnan(found.lifetime_sparsity[0])
    for i in range(1, 5):
        assert found.lifetime_sparsity[i] == pytest.approx(oracle.sparseness(of_images[:, i]))
    expected = np.mean([oracle.sparseness(responses) for responses in of_images])
    assert found.population_sparsity == pytest.approx(expected)


def test_images_that_no_filter_responds_to_do_not_count_as_unspecific(values: Values) -> None:
    """The mean is over the others; it is NaN without others, or with a single filter."""
    half = values[:20]
    dark = np.concatenate([half, np.zeros_like(half)])
    found = _stats(dark, np.zeros(40, int)).population_sparsity
    assert found == pytest.approx(_stats(half, np.zeros(20, int)).population_sparsity)
    assert np.isnan(_stats(np.zeros_like(half)).population_sparsity)
    assert np.isnan(_stats(half[..., 3:4]).population_sparsity)


def test_activations_below_zero_count_as_zero(values: Values) -> None:
    """A layer without ReLU has some."""
    without = np.where(values > 0, values, -3).astype(np.float32)
    found, expected = _stats(without), _stats(values)
    assert _values_of(found)[1] == _values_of(expected)[1]
    np.testing.assert_array_equal(_values_of(found)[0], _values_of(expected)[0])


def _values_of(stats: ActivationStats) -> tuple[NDArray[np.float64], list[Any]]:
    """Return the statistics that are sums, which depend on the order, and those that are counts."""
    summed = (
        stats.class_means,
        stats.mean_response,
        stats.lifetime_sparsity,
        np.array(stats.population_sparsity),
        stats.correlation.correlations(),
    )
    counted = (
        stats.fraction_active,
        stats.largest,
        stats.quantiles(LEVELS),
        stats.histogram(20),
    )
    return np.concatenate([part.ravel() for part in summed]), [part.tolist() for part in counted]


@pytest.mark.parametrize("lengths", [[1] * 40, [39, 1], [1, 39], [13, 14, 13]])
def test_any_batches_give_the_same(values: Values, lengths: list[int]) -> None:
    """Counts exactly, sums up to rounding."""
    summed, counted = _values_of(_stats(values, lengths=lengths))
    expected_sums, expected_counts = _values_of(_stats(values))
    assert counted == expected_counts
    np.testing.assert_allclose(summed, expected_sums, rtol=1e-12)


def test_memory_does_not_grow_with_the_number_of_images(rng: np.random.Generator) -> None:
    """The pickle after 30 batches is as large as after one."""
    drawn = rng.uniform(0, 1, (300, 4, 4, 3)).astype(np.float32)
    one, many = _stats(drawn[:10]), _stats(drawn, lengths=[10] * 30)
    assert abs(len(pickle.dumps(many)) - len(pickle.dumps(one))) < 100


def test_large_batches_are_split_into_chunks(rng: np.random.Generator) -> None:
    """No activation is left out or counted twice."""
    drawn = rng.normal(0, 1, (70, 64, 64, 4)).astype(np.float32)
    assert drawn.size > 1 << 20
    found = _stats(drawn)
    assert found.n_positions == 70 * 64 * 64
    fires = (drawn > 0).sum(axis=(0, 1, 2))
    np.testing.assert_array_equal(found.histogram(20).sum(axis=1), fires)
    means = np.maximum(np.float64(drawn), 0).mean(axis=(1, 2))
    for label in range(3):
        np.testing.assert_allclose(found.class_means[label], means[label::3].mean(axis=0))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_statistics_without_a_unit_do_not_depend_on_the_scale(values: Values, scale: float) -> None:
    """Squares of such activations exceed float32; statistics with a unit scale along."""
    small, large = _stats(values), _stats(values * np.float32(scale))
    np.testing.assert_allclose(large.lifetime_sparsity, small.lifetime_sparsity, rtol=1e-5)
    np.testing.assert_allclose(
        large.correlation.correlations(), small.correlation.correlations(), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(large.mean_response, small.mean_response * scale, rtol=1e-5)
    np.testing.assert_array_equal(large.fraction_active, small.fraction_active)


def test_the_largest_and_the_smallest_floats_are_counted() -> None:
    """A filter whose activation is denormal fires; quantiles of the largest float are finite."""
    drawn = np.zeros((4, 1, 1, 2), np.float32)
    drawn[1:, 0, 0, 0] = np.float32(1e-45)
    drawn[1:, 0, 0, 1] = np.finfo(np.float32).max
    found = _stats(drawn)
    assert found.fraction_active.tolist() == [0.75, 0.75]
    assert found.histogram(2).tolist() == [[0, 3], [0, 3]]
    np.testing.assert_array_equal(found.quantiles(np.array([0.2, 0.9])).T, drawn[:2, 0, 0])


def _flat(rng: np.random.Generator) -> Values:
    """Return activations (positions, filters): 1 is 0 scaled; 2 their sum and more; 3 alone."""
    drawn = np.maximum(rng.normal(0, 1, (5000, 4)), 0)
    drawn[:, 1] = 7 * drawn[:, 0]
    drawn[:, 2] += drawn[:, 0]
    return drawn.astype(np.float32)


def _correlations(drawn: Values, other: Values | None = None) -> NDArray[np.float64]:
    """Return the correlations of activations that come in unequal parts."""
    found = Correlation()
    for start, stop in ((0, 1), (1, 2000), (2000, len(drawn))):
        part = drawn[start:stop]
        found.add(part, part if other is None else other[start:stop])
    return found.correlations()


def test_correlations_are_pearsons(rng: np.random.Generator) -> None:
    """As numpy.corrcoef gives them for all positions at once; scaled copies have 1."""
    drawn = _flat(rng)
    found = _correlations(drawn)
    np.testing.assert_allclose(found, np.corrcoef(np.float64(drawn).T), atol=1e-12)
    assert found[0, 1] == pytest.approx(1, abs=1e-7)
    assert found.max() <= 1


def test_correlations_of_two_sets_are_pearsons(rng: np.random.Generator) -> None:
    """Rows are filters of the first set, columns those of the other."""
    one, other = _flat(rng)[:, :3], -_flat(rng) + 5
    expected = np.corrcoef(np.float64(one).T, np.float64(other).T)[:3, 3:]
    np.testing.assert_allclose(_correlations(one, other), expected, atol=1e-12, strict=True)


def test_a_large_mean_costs_no_digits(rng: np.random.Generator) -> None:
    """Filters that are always on, at 1000, and vary by a hundredth; the first value is far off."""
    drawn = (1000 + 0.01 * rng.normal(0, 1, (5000, 2))).astype(np.float32)
    drawn[0] = 0
    np.testing.assert_allclose(_correlations(drawn), np.corrcoef(np.float64(drawn).T), rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e30])
def test_a_constant_filter_correlates_with_nothing(rng: np.random.Generator, value: float) -> None:
    """Not with itself, nor by rounding with any other."""
    drawn = _flat(rng)
    drawn[:, 3] = value
    found = _correlations(drawn)
    assert np.isnan(found[3]).all()
    assert np.isnan(found[:, 3]).all()
    assert np.isfinite(found[:3, :3]).all()


def test_correlations_do_not_depend_on_the_number_of_threads(rng: np.random.Generator) -> None:
    """Two sets at the 81,000 positions of a batch agree to the last digit."""
    drawn = np.maximum(rng.normal(0, 1, (81_000, 64)), 0).astype(np.float32)
    found = set()
    for n_threads in (1, 2):
        with threadpoolctl.threadpool_limits(n_threads, user_api="blas"):
            found.add(_correlations(drawn, drawn[:, ::-1]).tobytes())
    assert len(found) == 1
