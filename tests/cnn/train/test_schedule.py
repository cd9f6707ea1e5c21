"""The inputs of each train step: golden values of every schedule, and rules for all of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnn.config.training import Training
from cnn.train import recipes, schedule

# (1 + cos(i pi / 8)) / 2 for i = 0..7, by half angles
HALF_COSINE = [1, 0.96193977, 0.85355339, 0.69134172, 0.5, 0.30865828, 0.14644661, 0.03806023]
KINDS = ("constant", "linear", "cosine", "one-cycle")


def _settings(kind: str, steps: int, warmup_fraction: float, peak: float = 1.0) -> Training:
    changes = {"steps": steps, "warmup_fraction": warmup_fraction, "learning_rate": peak}
    return Training.model_validate(recipes.SPEC.model_dump() | {"schedule": kind} | changes)


@pytest.mark.parametrize(
    ("kind", "warmup_fraction", "expected"),
    [
        ("constant", 0.2, [0.5, *[1] * 9]),
        ("linear", 0.2, [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("linear", 0.0, [1, 0.75, 0.5, 0.25]),
        ("cosine", 0.2, [0.5, 1, *HALF_COSINE]),
        # from 1/25 of the peak, which lies one step before the first
        ("one-cycle", 1 / 3, [0.18058874, 0.52, 0.85941125, 1, *HALF_COSINE]),
    ],
)
def test_rates_have_their_golden_values(
    kind: str, warmup_fraction: float, expected: list[float]
) -> None:
    """Each schedule warms up to a peak of 0.02 and then falls as its name says."""
    n_steps = len(expected)
    rates = schedule.learning_rates(_settings(kind, n_steps, warmup_fraction, 0.02), 0, n_steps)
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, np.multiply(0.02, expected), rtol=1e-6)


FRACTIONS = st.one_of(st.just(0.0), st.floats(0.001, 0.999))


@given(st.sampled_from(KINDS), st.integers(1, 60), FRACTIONS, st.floats(1e-6, 1e9))
def test_rates_rise_to_the_peak_and_never_rise_again(
    kind: str, steps: int, warmup_fraction: float, peak: float
) -> None:
    """Every rate is finite, above 0 and at most the peak; rates rise only in the warm-up."""
    settings = _settings(kind, steps, warmup_fraction, peak)
    rates = schedule.learning_rates(settings, 0, steps)
    assert np.isfinite(rates).all()
    assert (rates > 0).all()
    assert (rates <= np.float32(peak)).all()
    n_rising = int(np.ceil(warmup_fraction * steps))
    rises = np.diff(rates[:n_rising])
    # A cosine is flat at its top, where two steps may be equal to the last bit.
    assert ((rises >= 0) if kind == "one-cycle" else (rises > 0)).all()
    assert (np.diff(rates[n_rising:]) <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup_fraction", [5e-324, float(np.nextafter(1, 0))])
def test_the_most_extreme_warm_ups_give_finite_rates(kind: str, warmup_fraction: float) -> None:
    """A warm-up of almost no step or almost every step causes no warning either."""
    rates = schedule.learning_rates(_settings(kind, 10, warmup_fraction), 0, 10)
    assert ((rates > 0) & (rates <= 1)).all()
    first = 1 / 25 + 24 / 25 * (1 - np.cos(np.pi / 10)) / 2 if kind == "one-cycle" else 0.1
    assert rates[0] == (1 if warmup_fraction < 0.5 else np.float32(first))


@given(
    st.sampled_from(KINDS),
    FRACTIONS,
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 80),
    st.lists(st.integers(1, 8), min_size=1, max_size=8),
)
def test_any_cut_into_blocks_gives_the_same_inputs(
    kind: str,
    warmup_fraction: float,
    seed: int,
    n_images: int,
    batch_size: int,
    lengths: list[int],
) -> None:
    """A step's scalars and batch do not depend on the block that it is in."""
    n_steps = sum(lengths)
    settings = _settings(kind, n_steps, warmup_fraction).model_copy(update={"ema_decay": 0.5})
    inputs: list[Callable[[int, int], NDArray[Any]]] = [
        lambda first, n: schedule.scalars(settings, first, n),
        lambda first, n: schedule.batches(seed, n_images, batch_size, first, n),
    ]
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    for each in inputs:
        parts = [each(start, n) for start, n in zip(starts, lengths, strict=True)]
        np.testing.assert_array_equal(np.concatenate(parts), each(0, n_steps))


def test_the_scalars_of_a_step_are_rate_powers_and_mixing() -> None:
    """Powers begin at 1: Adam's correction of step t divides by 1 - beta ** t, never by 0."""
    changes = {"beta1": 0.9, "beta2": 0.5, "ema_decay": 0.99}
    settings = _settings("linear", 2000, 0.0).model_copy(update=changes)
    scalars = schedule.scalars(settings, 0, 2000)
    assert scalars.dtype == np.float32
    rates, powers1, powers2, mixing = scalars.T
    np.testing.assert_array_equal(rates, schedule.learning_rates(settings, 0, 2000))
    np.testing.assert_allclose(powers1[:4], [0.9, 0.81, 0.729, 0.6561], rtol=1e-6)
    np.testing.assert_allclose(powers2[:3], [0.5, 0.25, 0.125], rtol=1e-6)
    # The average soon forgets the initial weights, as TensorFlow's moving average does.
    np.testing.assert_allclose(mixing[:3], [1 - 1 / 10, 1 - 2 / 11, 1 - 3 / 12], rtol=1e-6)
    np.testing.assert_allclose(mixing[-1], 0.01, rtol=1e-5)
    assert (np.diff(mixing) <= 0).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 80), st.integers(1, 20))
def test_every_epoch_is_a_permutation_of_all_images(
    seed: int, n_images: int, batch_size: int, n_steps: int
) -> None:
    """No batch is short or dropped; an epoch may end within a batch; the last may be a part."""
    drawn = schedule.batches(seed, n_images, batch_size, 0, n_steps)
    assert drawn.shape == (n_steps, batch_size)
    *epochs, rest = np.split(drawn.ravel(), range(n_images, drawn.size + 1, n_images))
    for epoch in epochs:
        assert sorted(epoch) == list(range(n_images))
    assert set(rest) <= set(range(n_images))
    assert len(set(rest)) == len(rest)


@pytest.mark.parametrize("other", [1, 2, 2**32 - 1])
def test_seed_and_epoch_decide_the_order(other: int) -> None:
    """The same seed repeats the order; another seed and the next epoch have another one."""
    first, second = drawn = schedule.batches(0, n_images=50, batch_size=50, first_step=0, n_steps=2)
    np.testing.assert_array_equal(schedule.batches(0, 50, 50, 0, 2), drawn)
    orders = [first.tolist(), second.tolist(), list(range(50))]
    assert len({tuple(order) for order in orders}) == 3
    assert (schedule.batches(other, 50, 50, 0, 2) != drawn).any()
