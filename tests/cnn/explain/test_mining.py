"""Mining equals a full sort, however the images are split and merged."""

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
from tests.cnn.explain import oracle

Place = tuple[int, int, int]
Drawn = tuple[NDArray[np.float32], list[int]]
Found = tuple[list[float], list[Place], int]


def _sorted(values: NDArray[np.float32], options: MiningOptions) -> list[Found]:
    """Return each filter's activations, positions and n_tied by a full sort."""
    rule = {"one_per_image": options.one_per_image, "radius": options.radius}
    found: list[Found] = []
    for f, is_searched in enumerate(options.filters):
        floor = options.floor if is_searched else np.inf
        kept, n_tied = oracle.mined(values[..., f], options.k, floor=floor, **rule)
        places = [(item.image, item.y, item.x) for item in kept]
        found.append(([item.activation for item in kept], places, n_tied))
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


def _mine(
    values: NDArray[np.float32], lengths: list[int], options: MiningOptions, first: int = 0
) -> TopK:
    """Mine images in batches of these lengths; the first image has the index `first`."""
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    parts = [
        (first + start, values[start : start + n]) for start, n in zip(starts, lengths, strict=True)
    ]
    return mining.mine((Batch(at, part, part.max(axis=(1, 2))) for at, part in parts), options)


# Few different values, so that most activations are tied; 0 and below never fire.
VALUES = st.sampled_from([np.float32(v) for v in (-1, 0, 0, 1e-30, 0.5, 0.5, 1, 1 / 3)])


@st.composite
def _maps(draw: st.DrawFn) -> Drawn:
    """Return activations (n, y, x, filters) with many ties, and the lengths of batches."""
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    sides = st.integers(1, 4)
    shape = (sum(lengths), draw(sides), draw(sides), draw(st.integers(1, 3)))
    return draw(st_numpy.arrays(np.float32, shape, elements=VALUES)), lengths


@st.composite
def _any_options(draw: st.DrawFn, n_filters: int, most: int) -> MiningOptions:
    """Return any options: k, the lowest too, some of the filters, one per image, a radius."""
    return MiningOptions(
        draw(st.integers(1, most)),
        np.array(draw(st.lists(st.booleans(), min_size=n_filters, max_size=n_filters))),
        draw(st.sampled_from([0.0, -np.inf])),
        draw(st.booleans()),
        draw(st.integers(0, 3)),
    )


@settings(max_examples=500, deadline=None)
@given(st.data(), _maps())
def test_any_batches_give_the_full_sort(data: st.DataObject, drawn: Drawn) -> None:
    """Activations, positions and n_tied, with ties, fewer than k, and filters that never fire."""
    values, lengths = drawn
    options = data.draw(_any_options(values.shape[-1], 60))
    expected = _sorted(values, options)
    assert _plain(_mine(values, [len(values)], options), values.shape[1:3]) == expected
    assert _plain(_mine(values, lengths, options), values.shape[1:3]) == expected


@settings(max_examples=500, deadline=None)
@given(st.data(), _maps(), st.randoms(use_true_random=False))
def test_any_order_of_merging_gives_the_full_sort(
    data: st.DataObject, drawn: Drawn, chance: Any
) -> None:
    """Partial results are merged two at a time, any two, in either order."""
    values, lengths = drawn
    options = data.draw(_any_options(values.shape[-1], 12))
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    parts = [
        _mine(values[start : start + n], [n], options, first=start)
        for start, n in zip(starts, lengths, strict=True)
    ]
    while len(parts) > 1:
        chance.shuffle(parts)
        parts.append(mining.merge(parts.pop(), parts.pop(), options.k))
    assert _plain(parts[0], values.shape[1:3]) == _sorted(values, options)


@pytest.mark.parametrize("lengths", [[400], [1] * 400, [399, 1], [1, 399], [150, 100, 150]])
@pytest.mark.parametrize("k", [1, 12, 500])
@pytest.mark.parametrize("changes", [{}, {"one_per_image": True}, {"radius": 1}])
def test_one_batch_and_many_give_the_full_sort(
    lengths: list[int], k: int, changes: dict[str, Any], rng: np.random.Generator
) -> None:
    """400 images of rounded activations, of which many are tied, in up to 400 batches."""
    values = np.maximum(np.round(rng.normal(0, 3, (400, 4, 5, 3))), 0).astype(np.float32)
    options = MiningOptions(k, np.ones(3, bool), **changes)
    found = _plain(_mine(values, lengths, options), (4, 5))
    assert found == _sorted(values, options)
    if (k, changes) != (500, {"one_per_image": True}):
        assert any(n_tied for _, _, n_tied in found), "no tie at the last rank: nothing shown"


def test_no_images_give_nothing() -> None:
    """No positions and no ties."""
    nothing = mining.mine([], MiningOptions(5, np.ones(3, bool)))
    assert _plain(nothing, (1, 1)) == [([], [], 0)] * 3


def test_results_have_fixed_types(rng: np.random.Generator) -> None:
    """float32 activations and int64 positions after a merge."""
    values = rng.normal(0, 1, (6, 2, 2, 3)).astype(np.float32)
    found = _mine(values, [4, 2], MiningOptions(7, np.ones(3, bool)))
    kinds = [
        part.dtype for part in (found.filters, found.activations, found.positions, found.n_tied)
    ]
    assert kinds == [np.int64, np.float32, np.int64, np.int64]
    assert np.bincount(found.filters).tolist() == [7, 7, 7]
