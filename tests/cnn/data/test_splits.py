"""The stratified split into images kept and images held out."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnn.data import splits

class_counts = st.lists(st.integers(0, 40), min_size=1, max_size=6)
fractions = st.sampled_from([0.0, 1 / 12, 1 / 7, 0.5]) | st.floats(0, 0.999)
seeds = st.integers(0, 2**32 - 1)


def labelled(counts: list[int], seed: int, is_sorted: bool = False) -> NDArray[np.int64]:
    """Return that many labels of each class, sorted or shuffled."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return labels if is_sorted else np.random.default_rng(seed + 1).permutation(labels)


@given(counts=class_counts, fraction=fractions, seed=seeds, is_sorted=st.booleans())
@example(counts=[2, 3], fraction=0.01, seed=0, is_sorted=False)
@example(counts=[2, 3], fraction=0.99, seed=0, is_sorted=False)
@example(counts=[1, 3], fraction=0.5, seed=0, is_sorted=True)
@example(counts=[25] * 4, fraction=0.2, seed=0, is_sorted=True)
def test_every_image_is_on_one_side_and_every_class_has_its_share(
    counts: list[int], fraction: float, seed: int, is_sorted: bool
) -> None:
    """Both parts are ascending, and the same seed gives the same ones.

    The held-out part of a class is within one image of its share. A class of two or more is
    on both sides; the only image of a class is never held out.
    """
    labels = labelled(counts, seed, is_sorted)
    kept, held_out = splits.stratified(labels, fraction, seed)
    assert sorted([*kept, *held_out]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held_out) > 0).all()
    np.testing.assert_array_equal(splits.stratified(labels, fraction, seed)[1], held_out)
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
    labels = labelled(counts, seed)
    for fraction in (0.0, 1 / 12, 1 / 7, 0.3, 0.5, 11 / 12):
        _, held_out = splits.stratified(labels, fraction, seed)
        assert len(held_out) == round(len(labels) * fraction)


def test_another_seed_gives_other_images() -> None:
    """The held-out images are drawn at random, not the first of each class."""
    labels = np.repeat(np.arange(10), 50)
    drawn = {tuple(splits.stratified(labels, 0.1, seed)[1]) for seed in range(5)}
    assert len(drawn) == 5
