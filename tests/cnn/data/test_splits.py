"""The stratified split into images kept and images held out."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnn.data import splits

class_counts = st.lists(st.integers(0, 40), min_size=1, max_size=6)
fractions = st.sampled_from([0.0, 1 / 12, 1 / 7, 0.5]) | st.floats(0, 0.999)
seeds = st.integers(0, 2**32 - 1)


def shuffled(counts: list[int], seed: int) -> NDArray[np.int64]:
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed + 1).permutation(labels)


@given(counts=class_counts, fraction=fractions, seed=seeds)
def test_every_image_is_on_exactly_one_side(counts: list[int], fraction: float, seed: int) -> None:
    """The two parts are disjoint, complete and in ascending order."""
    labels = shuffled(counts, seed)
    kept, held_out = splits.stratified(labels, fraction, seed)
    assert sorted([*kept, *held_out]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held_out) > 0).all()


@given(counts=class_counts, fraction=fractions, seed=seeds)
@example(counts=[2, 3], fraction=0.01, seed=0)
@example(counts=[2, 3], fraction=0.99, seed=0)
def test_every_class_has_its_share(counts: list[int], fraction: float, seed: int) -> None:
    """A class's part is within one image of its share, and on both sides if it can be."""
    labels = shuffled(counts, seed)
    kept, held_out = splits.stratified(labels, fraction, seed)
    for label, count in enumerate(counts):
        n_held_out = int((labels[held_out] == label).sum())
        assert abs(n_held_out - count * fraction) < 1 + 1e-9
        if count >= 2 and fraction > 0:
            assert 1 <= n_held_out <= count - 1
        elif count:
            assert label in labels[kept]


@given(counts=st.lists(st.integers(24, 60), min_size=1, max_size=10), seed=seeds)
def test_the_total_is_the_share_of_all_images(counts: list[int], seed: int) -> None:
    """Rounding by class does not add up: round(n * fraction) images are held out."""
    labels = shuffled(counts, seed)
    for fraction in (0.0, 1 / 12, 1 / 7, 0.3, 0.5, 11 / 12):
        _, held_out = splits.stratified(labels, fraction, seed)
        assert len(held_out) == round(len(labels) * fraction)


@given(counts=class_counts, fraction=fractions, seed=seeds)
def test_the_seed_decides(counts: list[int], fraction: float, seed: int) -> None:
    """The same seed gives the same images."""
    labels = shuffled(counts, seed)
    first, second = (splits.stratified(labels, fraction, seed) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_another_seed_gives_other_images() -> None:
    """The held-out images are drawn, not the first of each class."""
    labels = np.repeat(np.arange(10), 50)
    drawn = {tuple(splits.stratified(labels, 0.1, seed)[1]) for seed in range(5)}
    assert len(drawn) == 5


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_a_class_with_one_image_keeps_it_for_training(fraction: float) -> None:
    """The only image of a class is never held out."""
    kept, _ = splits.stratified(np.array([0, 1, 1, 1]), fraction, 0)
    assert 0 in kept


def test_images_sorted_by_class_are_split_within_each_class() -> None:
    """Data stored class by class still has every class on both sides."""
    labels = np.repeat(np.arange(4), 25)
    _, held_out = splits.stratified(labels, 0.2, 0)
    assert np.bincount(labels[held_out]).tolist() == [5, 5, 5, 5]
