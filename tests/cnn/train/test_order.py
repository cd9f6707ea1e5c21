"""Batches are a function of seed and step, and every image has its turn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn.train import schedule


def test_every_image_is_seen_once_an_epoch_also_where_batches_span_two() -> None:
    """70 images in 35 batches of 32 are 16 epochs: each image 16 times."""
    drawn = schedule.batches(0, n_images=70, batch_size=32, first_step=0, n_steps=35)
    assert drawn.shape == (35, 32)
    assert np.bincount(drawn.ravel(), minlength=70).tolist() == [16] * 70


@given(
    seed=st.integers(0, 2**32 - 1),
    n_images=st.integers(1, 60),
    batch_size=st.integers(1, 80),
    n_steps=st.integers(1, 20),
)
def test_no_image_is_ever_more_than_one_turn_ahead_of_another(
    seed: int, n_images: int, batch_size: int, n_steps: int
) -> None:
    """After any number of steps the images' counts differ by at most one."""
    drawn = schedule.batches(seed, n_images, batch_size, 0, n_steps)
    counts = np.bincount(drawn.ravel(), minlength=n_images)
    assert len(counts) == n_images
    assert counts.sum() == n_steps * batch_size
    assert np.ptp(counts) <= 1


@given(
    seed=st.integers(0, 2**32 - 1),
    n_images=st.integers(1, 60),
    batch_size=st.integers(1, 80),
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=8),
)
def test_any_cut_into_blocks_gives_the_same_batches(
    seed: int, n_images: int, batch_size: int, lengths: list[int]
) -> None:
    """What a step's batch holds does not depend on the block in which it was asked for."""
    whole = schedule.batches(seed, n_images, batch_size, 0, sum(lengths))
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    parts = [
        schedule.batches(seed, n_images, batch_size, start, length)
        for start, length in zip(starts, lengths, strict=True)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_each_epoch_has_another_order() -> None:
    """Two epochs are two permutations of the same images."""
    first, second = schedule.batches(0, n_images=50, batch_size=50, first_step=0, n_steps=2)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first.tolist() != second.tolist()
    assert first.tolist() != list(range(50))


@pytest.mark.parametrize("other", [1, 2, 2**32 - 1])
def test_another_seed_gives_another_order(other: int) -> None:
    """The seed decides the order: the same one repeats it, another one changes it."""
    drawn = schedule.batches(0, n_images=200, batch_size=50, first_step=0, n_steps=4)
    np.testing.assert_array_equal(schedule.batches(0, 200, 50, 0, 4), drawn)
    assert (schedule.batches(other, 200, 50, 0, 4) != drawn).any()
