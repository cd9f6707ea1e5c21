"""Learning rates: golden values of each schedule, and what holds for all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn.config.training import Training
from cnn.train import recipes, schedule


def _settings(kind: str, steps: int, warmup_fraction: float, peak: float = 1.0) -> Training:
    return Training.model_validate(
        recipes.SPEC.model_dump()
        | {
            "schedule": kind,
            "steps": steps,
            "warmup_fraction": warmup_fraction,
            "learning_rate": peak,
        }
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        (
            "cosine",
            # (1 + cos(i pi / 8)) / 2 for i = 0..7, by half angles
            [
                0.5,
                1,
                1,
                0.96193977,
                0.85355339,
                0.69134172,
                0.5,
                0.30865828,
                0.14644661,
                0.03806023,
            ],
        ),
    ],
)
def test_each_schedule_warms_up_and_then_falls_as_its_name_says(
    kind: str, expected: list[float]
) -> None:
    """Golden rates of 10 steps with 2 steps of warm-up and a peak of 1."""
    rates = schedule.learning_rates(_settings(kind, 10, 0.2), 0, 10)
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_without_a_warm_up_the_first_step_has_the_peak_rate() -> None:
    """A warm-up fraction of 0 leaves no step below the peak at the start."""
    rates = schedule.learning_rates(_settings("linear", 4, 0.0, peak=0.02), 0, 4)
    np.testing.assert_allclose(rates, [0.02, 0.015, 0.01, 0.005], rtol=1e-6)


KINDS = st.sampled_from(["constant", "linear", "cosine", "one-cycle"])
FRACTIONS = st.one_of(st.just(0.0), st.floats(0.001, 0.999))


@given(
    kind=KINDS,
    steps=st.integers(1, 60),
    warmup_fraction=FRACTIONS,
    peak=st.floats(1e-6, 1e9),
)
def test_rates_rise_to_the_peak_and_never_rise_again(
    kind: str, steps: int, warmup_fraction: float, peak: float
) -> None:
    """Every rate is finite, above 0, at most the peak; they rise only over the warm-up."""
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


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "one-cycle"])
@pytest.mark.parametrize("warmup_fraction", [5e-324, float(np.nextafter(1, 0))])
def test_the_most_extreme_legal_warm_ups_are_no_trouble(kind: str, warmup_fraction: float) -> None:
    """A warm-up of next to nothing, or of nearly all steps: finite rates, and no warning."""
    rates = schedule.learning_rates(_settings(kind, 10, warmup_fraction), 0, 10)
    assert ((rates > 0) & (rates <= 1)).all()
    first = 1 / 25 + 24 / 25 * (1 - np.cos(np.pi / 10)) / 2 if kind == "one-cycle" else 0.1
    assert rates[0] == (1 if warmup_fraction < 0.5 else np.float32(first))


@given(
    kind=KINDS,
    warmup_fraction=FRACTIONS,
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
def test_any_cut_into_blocks_gives_the_same_rates_and_powers(
    kind: str, warmup_fraction: float, lengths: list[int]
) -> None:
    """A step's rate and bias corrections do not depend on the block it is asked for in."""
    settings = _settings(kind, sum(lengths), warmup_fraction)
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    blocks = list(zip(starts, lengths, strict=True))
    np.testing.assert_array_equal(
        np.concatenate([schedule.learning_rates(settings, *block) for block in blocks]),
        schedule.learning_rates(settings, 0, sum(lengths)),
    )
    np.testing.assert_array_equal(
        np.concatenate([schedule.powers(0.98, *block) for block in blocks]),
        schedule.powers(0.98, 0, sum(lengths)),
    )


def test_powers_begin_with_the_first_power() -> None:
    """Adam's correction of step t (from 1) divides by 1 - beta ** t: never by 0."""
    powers = schedule.powers(0.9, first_step=0, n_steps=4)
    assert powers.dtype == np.float32
    np.testing.assert_allclose(powers, [0.9, 0.81, 0.729, 0.6561], rtol=1e-6)
    np.testing.assert_allclose(schedule.powers(0.9, 3, 1), [0.6561], rtol=1e-6)


def test_one_cycle_rises_and_falls_along_cosines() -> None:
    """Up from 1/25 of the peak, which lies one step before the first, and down; by half angles."""
    rates = schedule.learning_rates(_settings("one-cycle", 12, 1 / 3), 0, 12)
    rising = [0.18058874, 0.52, 0.85941125, 1]
    falling = [1, 0.96193977, 0.85355339, 0.69134172, 0.5, 0.30865828, 0.14644661, 0.03806023]
    np.testing.assert_allclose(rates, rising + falling, rtol=1e-6)


def test_the_moving_average_soon_forgets_the_first_weights() -> None:
    """The share of the new weights falls from 0.9 to 1 - decay, as TensorFlow's average has it."""
    shares = schedule.mixing(0.99, 0, 2000)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares[:3], [1 - 1 / 10, 1 - 2 / 11, 1 - 3 / 12], rtol=1e-6)
    np.testing.assert_allclose(shares[-1], 0.01, rtol=1e-5)
    assert (np.diff(shares) <= 0).all()
    np.testing.assert_array_equal(schedule.mixing(0.99, 700, 5), shares[700:705])
