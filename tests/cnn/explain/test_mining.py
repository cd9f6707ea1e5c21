"""Mining equals a full sort, however the images are cut and merged."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from cnn.explain import mining
from cnn.explain.activations import Batch
from cnn.explain.mining import Best

Found = tuple[list[float], list[tuple[int, ...]], int]


def _sorted(values: NDArray[np.float32], k: int) -> list[Found]:
    """Return each filter's activations, positions and n_tied, by sorting plain tuples."""
    found: list[Found] = []
    for f in range(values.shape[-1]):
        fires = sorted(
            (-float(value), place) for place, value in np.ndenumerate(values[..., f]) if value > 0
        )
        kept, dropped = fires[:k], fires[k:]
        n_tied = sum(value == kept[-1][0] for value, _ in dropped)
        found.append(([-value for value, _ in kept], [place for _, place in kept], n_tied))
    return found


def _plain(best: list[Best]) -> list[Found]:
    return [
        (item.activations.tolist(), [tuple(row) for row in item.positions.tolist()], item.n_tied)
        for item in best
    ]


def _mine(values: NDArray[np.float32], lengths: list[int], k: int, first: int = 0) -> list[Best]:
    """Mine images in batches of these lengths; the first image has the index `first`."""
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    batches = (
        Batch(first + start, values[start : start + n])
        for start, n in zip(starts, lengths, strict=True)
    )
    return mining.mine(batches, values.shape[-1], k)


# Few different values, so that most activations are tied; 0 and below never fire.
VALUES = st.sampled_from([np.float32(v) for v in (-1, 0, 0, 0.1, 0.5, 0.5, 1, np.float32(1) / 3)])


@st.composite
def _maps(draw: st.DrawFn) -> tuple[NDArray[np.float32], list[int]]:
    """Return activations (n, y, x, filters) with many ties, and a cut of the images."""
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    sides = st.integers(1, 3)
    shape = (sum(lengths), draw(sides), draw(sides), draw(sides))
    return draw(st_numpy.arrays(np.float32, shape, elements=VALUES)), lengths


@settings(max_examples=300, deadline=None)
@given(_maps(), st.integers(1, 60))
def test_any_cut_into_batches_gives_the_full_sort(
    drawn: tuple[NDArray[np.float32], list[int]], k: int
) -> None:
    """Activations, positions and n_tied, with ties, fewer than k, and filters that never fire."""
    values, lengths = drawn
    expected = _sorted(values, k)
    assert _plain(_mine(values, [len(values)], k)) == expected
    assert _plain(_mine(values, lengths, k)) == expected


@settings(max_examples=300, deadline=None)
@given(_maps(), st.integers(1, 12), st.randoms(use_true_random=False))
def test_any_order_of_merging_gives_the_full_sort(
    drawn: tuple[NDArray[np.float32], list[int]], k: int, chance: Any
) -> None:
    """Partial results are merged two at a time, any two, in either order."""
    values, lengths = drawn
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    parts = [
        _mine(values[start : start + n], [n], k, first=start)
        for start, n in zip(starts, lengths, strict=True)
    ]
    while len(parts) > 1:
        chance.shuffle(parts)
        one, other = parts.pop(), parts.pop()
        parts.append([mining.merge(a, b, k) for a, b in zip(one, other, strict=True)])
    assert _plain(parts[0]) == _sorted(values, k)


@pytest.mark.parametrize("lengths", [[400], [1] * 400, [399, 1], [1, 399], [150, 100, 150]])
@pytest.mark.parametrize("k", [1, 12, 500])
def test_one_batch_and_many_give_the_same(
    lengths: list[int], k: int, rng: np.random.Generator
) -> None:
    """400 images of rounded activations, of which many are tied, in up to 400 batches."""
    values = np.maximum(np.round(rng.normal(0, 3, (400, 4, 5, 3))), 0).astype(np.float32)
    found = _plain(_mine(values, lengths, k))
    assert found == _sorted(values, k)
    assert any(n_tied for _, _, n_tied in found), "no tie at the last rank: nothing shown"


def test_ties_go_to_the_first_image_then_the_upper_row_then_the_left() -> None:
    """Five places with the same activation: the first three of them in reading order."""
    values = np.zeros((3, 2, 2, 1), np.float32)
    for place in ((2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1), (2, 1, 1)):
        values[place] = 0.7
    (best,) = _mine(values, [3], 3)
    assert best.positions.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert best.n_tied == 2


def test_ties_above_the_last_rank_are_not_counted() -> None:
    """n_tied is about the last row's activation alone, also after a stronger batch came."""
    values = np.array([1, 1, 1, 2, 3], np.float32).reshape(5, 1, 1, 1)
    (best,) = _mine(values, [3, 2], 2)
    assert (best.activations.tolist(), best.n_tied) == ([3, 2], 0)
    (best,) = _mine(values, [3, 2], 3)
    assert (best.activations.tolist(), best.n_tied) == ([3, 2, 1], 2)


def test_a_filter_that_never_fires_has_nothing() -> None:
    """Zeros are no activations, however few others there are."""
    values = np.zeros((4, 3, 3, 2), np.float32)
    values[2, 1, 0, 1] = 1e-30
    dead, alive = _mine(values, [2, 2], 5)
    assert (len(dead.activations), dead.positions.shape, dead.n_tied) == (0, (0, 3), 0)
    assert (alive.positions.tolist(), alive.n_tied) == ([[2, 1, 0]], 0)


def test_no_images_give_nothing() -> None:
    """A split without images has no patches."""
    assert _plain(mining.mine([], 3, 5)) == [([], [], 0)] * 3


def test_results_have_fixed_types(rng: np.random.Generator) -> None:
    """float32 activations and int64 positions, whatever was merged."""
    for item in _mine(rng.normal(0, 1, (6, 2, 2, 3)).astype(np.float32), [4, 2], 7):
        assert (item.activations.dtype, item.positions.dtype) == (np.float32, np.int64)
        assert item.positions.shape == (7, 3)
