"""Mining equals a full sort, however the images are cut and merged."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from cnn.explain import mining
from cnn.explain.activations import Batch
from cnn.explain.mining import MiningOptions, TopK

Place = tuple[int, int, int]
Found = tuple[list[float], list[Place], int]


def _kept_apart(fires: list[tuple[float, Place]], rule: MiningOptions) -> list[tuple[float, Place]]:
    """Return the strongest positions that no stronger one of their image keeps away."""
    kept: list[tuple[float, Place]] = []
    for value, (image, y, x) in fires:
        near = [
            other
            for _, other in kept
            if other[0] == image
            and (rule.one_per_image or max(abs(other[1] - y), abs(other[2] - x)) <= rule.radius)
        ]
        if not near:
            kept.append((value, (image, y, x)))
    return kept


def _sorted(values: NDArray[np.float32], rule: MiningOptions) -> list[Found]:
    """Return each filter's activations, positions and n_tied, by sorting plain tuples."""
    found: list[Found] = []
    for f in range(values.shape[-1]):
        fires = sorted(
            (-float(value), place)
            for place, value in np.ndenumerate(values[..., f])
            if value > rule.floor and rule.filters[f]
        )
        apart = _kept_apart(fires, rule)  # type: ignore[arg-type]
        kept, dropped = apart[: rule.k], apart[rule.k :]
        n_tied = sum(value == kept[-1][0] for value, _ in dropped)
        found.append(([-value for value, _ in kept], [place for _, place in kept], n_tied))
    return found


def _plain(best: TopK, sides: tuple[int, int]) -> list[Found]:
    found = []
    for f, n_tied in enumerate(best.n_tied.tolist()):
        of_filter = best.filters == f
        rows, x = np.divmod(best.positions[of_filter], sides[1])
        image, y = np.divmod(rows, sides[0])
        positions = list(zip(image.tolist(), y.tolist(), x.tolist(), strict=True))
        found.append((best.activations[of_filter].tolist(), positions, n_tied))
    return found


def _rule(values: NDArray[np.float32], k: int, **changes: Any) -> MiningOptions:
    return MiningOptions(k, np.ones(values.shape[-1], bool), **changes)


def _mine(
    values: NDArray[np.float32], lengths: list[int], rule: MiningOptions, first: int = 0
) -> TopK:
    """Mine images in batches of these lengths; the first image has the index `first`."""
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    parts = [
        (first + start, values[start : start + n]) for start, n in zip(starts, lengths, strict=True)
    ]
    return mining.mine((Batch(at, part, part.max(axis=(1, 2))) for at, part in parts), rule)


# Few different values, so that most activations are tied; 0 and below never fire.
VALUES = st.sampled_from([np.float32(v) for v in (-1, 0, 0, 0.1, 0.5, 0.5, 1, np.float32(1) / 3)])


@st.composite
def _maps(draw: st.DrawFn) -> tuple[NDArray[np.float32], list[int]]:
    """Return activations (n, y, x, filters) with many ties, and a cut of the images."""
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    sides = st.integers(1, 4)
    shape = (sum(lengths), draw(sides), draw(sides), draw(st.integers(1, 3)))
    return draw(st_numpy.arrays(np.float32, shape, elements=VALUES)), lengths


@st.composite
def _rules(draw: st.DrawFn, n_filters: int, most: int) -> MiningOptions:
    """Return any rule: k, the lowest too, some of the filters, one per image, a radius."""
    return MiningOptions(
        draw(st.integers(1, most)),
        np.array(draw(st.lists(st.booleans(), min_size=n_filters, max_size=n_filters))),
        draw(st.sampled_from([0.0, -np.inf])),
        draw(st.booleans()),
        draw(st.integers(0, 3)),
    )


@settings(max_examples=500, deadline=None)
@given(st.data(), _maps())
def test_any_cut_into_batches_gives_the_full_sort(
    data: st.DataObject, drawn: tuple[NDArray[np.float32], list[int]]
) -> None:
    """Strengths, positions and n_tied, with ties, fewer than k, and filters that never fire."""
    values, lengths = drawn
    rule = data.draw(_rules(values.shape[-1], 60))
    expected = _sorted(values, rule)
    assert _plain(_mine(values, [len(values)], rule), values.shape[1:3]) == expected
    assert _plain(_mine(values, lengths, rule), values.shape[1:3]) == expected


@settings(max_examples=500, deadline=None)
@given(st.data(), _maps(), st.randoms(use_true_random=False))
def test_any_order_of_merging_gives_the_full_sort(
    data: st.DataObject, drawn: tuple[NDArray[np.float32], list[int]], chance: Any
) -> None:
    """Partial results are merged two at a time, any two, in either order."""
    values, lengths = drawn
    rule = data.draw(_rules(values.shape[-1], 12))
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    parts = [
        _mine(values[start : start + n], [n], rule, first=start)
        for start, n in zip(starts, lengths, strict=True)
    ]
    while len(parts) > 1:
        chance.shuffle(parts)
        parts.append(mining.merge(parts.pop(), parts.pop(), rule.k))
    assert _plain(parts[0], values.shape[1:3]) == _sorted(values, rule)


@pytest.mark.parametrize("lengths", [[400], [1] * 400, [399, 1], [1, 399], [150, 100, 150]])
@pytest.mark.parametrize("k", [1, 12, 500])
@pytest.mark.parametrize("changes", [{}, {"one_per_image": True}, {"radius": 1}])
def test_one_batch_and_many_give_the_same(
    lengths: list[int], k: int, changes: dict[str, Any], rng: np.random.Generator
) -> None:
    """400 images of rounded activations, of which many are tied, in up to 400 batches."""
    values = np.maximum(np.round(rng.normal(0, 3, (400, 4, 5, 3))), 0).astype(np.float32)
    rule = _rule(values, k, **changes)
    found = _plain(_mine(values, lengths, rule), (4, 5))
    assert found == _sorted(values, rule)
    if (k, changes) != (500, {"one_per_image": True}):
        assert any(n_tied for _, _, n_tied in found), "no tie at the last rank: nothing shown"


def test_ties_go_to_the_first_image_then_the_upper_row_then_the_left() -> None:
    """Five positions with the same activation: the first three of them in reading order."""
    values = np.zeros((3, 2, 2, 1), np.float32)
    for place in ((2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1), (2, 1, 1)):
        values[place] = 0.7
    ((_, positions, n_tied),) = _plain(_mine(values, [3], _rule(values, 3)), (2, 2))
    assert positions == [(0, 1, 1), (1, 0, 1), (1, 1, 0)]
    assert n_tied == 2


def test_ties_above_the_last_rank_are_not_counted() -> None:
    """n_tied is about the last row's activation alone, also after a stronger batch came."""
    values = np.array([1, 1, 1, 2, 3], np.float32).reshape(5, 1, 1, 1)
    best = _mine(values, [3, 2], _rule(values, 2))
    assert (best.activations.tolist(), best.n_tied.tolist()) == ([3, 2], [0])
    best = _mine(values, [3, 2], _rule(values, 3))
    assert (best.activations.tolist(), best.n_tied.tolist()) == ([3, 2, 1], [2])


def test_one_image_gives_its_strongest_alone() -> None:
    """Of two images the better one may not take both positions; a tie in it goes to the first."""
    values = np.array([[3, 9, 9], [2, 1, 2]], np.float32).reshape(2, 1, 3, 1)
    ((activations, positions, n_tied),) = _plain(
        _mine(values, [2], _rule(values, 2, one_per_image=True)), (1, 3)
    )
    assert (activations, positions, n_tied) == ([9, 2], [(0, 0, 1), (1, 0, 0)], 0)


def test_a_place_keeps_weaker_neighbours_away_and_what_is_kept_away_keeps_none() -> None:
    """5 keeps 4 away; 3 stands beside the 4 alone, and stays."""
    values = np.array([5, 4, 3, 0, 1], np.float32).reshape(1, 1, 5, 1)
    best = _mine(values, [1], _rule(values, 5, radius=1))
    assert best.activations.tolist() == [5, 3, 1]


def test_the_lowest_are_found_among_all_and_zeros_count() -> None:
    """With every sign changed and no floor."""
    values = -np.array([2, 0, -3, 0, 1], np.float32).reshape(5, 1, 1, 1)
    best = _mine(values, [2, 3], _rule(values, 2, floor=-np.inf))
    assert (best.activations.tolist(), best.positions.tolist()) == ([3, 0], [2, 1])
    assert best.n_tied.tolist() == [1]


def test_filters_that_are_not_searched_have_nothing(rng: np.random.Generator) -> None:
    """The others are found as if all were."""
    values = rng.normal(0, 1, (6, 2, 2, 3)).astype(np.float32)
    every = _rule(values, 4)
    some = replace(every, filters=np.array([True, False, True]))
    all_found, found = (_plain(_mine(values, [4, 2], rule), (2, 2)) for rule in (every, some))
    assert found == [all_found[0], ([], [], 0), all_found[2]]


def test_a_filter_that_never_fires_has_nothing() -> None:
    """Zeros are no activations, however few others there are."""
    values = np.zeros((4, 3, 3, 2), np.float32)
    values[2, 1, 0, 1] = 1e-30
    dead, alive = _plain(_mine(values, [2, 2], _rule(values, 5)), (3, 3))
    assert dead == ([], [], 0)
    assert alive[1:] == ([(2, 1, 0)], 0)


def test_no_images_give_nothing() -> None:
    """A split without images has no patches."""
    nothing = mining.mine([], MiningOptions(5, np.ones(3, bool)))
    assert _plain(nothing, (1, 1)) == [([], [], 0)] * 3


def test_results_have_fixed_types(rng: np.random.Generator) -> None:
    """float32 activations and int64 positions, whatever was merged."""
    values = rng.normal(0, 1, (6, 2, 2, 3)).astype(np.float32)
    found = _mine(values, [4, 2], _rule(values, 7))
    kinds = [
        part.dtype for part in (found.filters, found.activations, found.positions, found.n_tied)
    ]
    assert kinds == [np.int64, np.float32, np.int64, np.int64]
    assert np.bincount(found.filters).tolist() == [7, 7, 7]
