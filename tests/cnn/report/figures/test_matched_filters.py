"""The figure of matched filters."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cnn.compare.comparison import MatchedLayer
from cnn.compare.matching import Match, Pair, Status
from cnn.report.figures import contact_sheet, matched_filters, theme
from cnn.report.figures.contact_sheet import Tile
from tests.cnn.report.conftest import DrawnTiles
from tests.cnn.report.helpers import drawn, lines
from tests.cnn.report.matched import PAIRS, layer_view


def halves(tile: Tile) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    width = tile.image.shape[0]
    return tile.image[:, :width], tile.image[:, -width:]


def test_new_lost_and_changed_filters_come_first(
    layer: MatchedLayer, drawn_tiles: DrawnTiles
) -> None:
    """Each with its numbers, status and correlation, and whether it never fires."""
    assert [tuple(tile.lines) for tile in drawn_tiles(lambda: matched_filters.draw(layer))] == [
        ("none → 2", "new"),
        ("3 → none", "lost"),
        ("1 → 0", "changed 0.50"),
        ("2 → 3", "dead", "never fires"),
        ("0 → 1", "same 0.97"),
    ]


def test_a_tile_shows_both_kernels_and_grey_for_a_missing_one(
    layer: MatchedLayer, drawn_tiles: DrawnTiles
) -> None:
    """The earlier one at the left; the later one, which is smaller, centred at the right."""
    new, lost, changed, *_ = map(halves, drawn_tiles(lambda: matched_filters.draw(layer)))
    largest = max(float(np.abs(side.kernels).max()) for side in (layer.before, layer.after))
    before = contact_sheet.kernel_image(layer.before.kernels[1], largest)
    after = contact_sheet.kernel_image(layer.after.kernels[0], largest)
    assert np.array_equal(changed[0], before)
    assert np.array_equal(changed[1][1:4, 1:4], after)
    assert (changed[1][0] == 255).all()
    for missing in (new[0], lost[1]):
        assert np.unique(missing).size == 1
        assert 0 < missing[0, 0, 0] < 255


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_kernels_of_deeper_layers_give_way_to_patches(
    rng: np.random.Generator, drawn_tiles: DrawnTiles, channels: int
) -> None:
    """The four strongest in reading order, white where fewer positions fire.

    Three input channels of a deeper layer are not red, green and blue.
    """
    sides = [layer_view(rng, (5, 5, channels), patch=(6, 6, 1)) for _ in range(2)]
    matched = MatchedLayer(Match("conv2", PAIRS[:1], 0.1), *sides)
    (tile,) = drawn_tiles(lambda: matched_filters.draw(matched))
    left, right = halves(tile)
    pixels = sides[0].patches.pixels[0]
    assert np.array_equal(left[:6, :6, 0], pixels[0, ..., 0])
    assert np.array_equal(left[:6, 7:, 0], pixels[1, ..., 0])
    assert np.array_equal(left[7:, :6, 0], pixels[2, ..., 0])
    assert (left[7:, 7:] == 255).all()
    assert np.array_equal(right[:6, :6, 0], sides[1].patches.pixels[1, 0, ..., 0])


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_a_layer_of_64_filters_is_drawn(rng: np.random.Generator, channels: int) -> None:
    """The same bytes twice; the title counts, the note says what unrelated filters reach."""
    patch = (6, 6, 1) if channels == 8 else None
    before, after = (layer_view(rng, (5, 5, channels), silent, patch) for silent in ((0,), ()))
    pairs = [Pair(i % 4, (i + 1) % 4, "same" if i % 2 else "changed", 0.9) for i in range(64)]
    figures = [
        matched_filters.draw(MatchedLayer(Match("conv2", pairs, 0.25), before, after))
        for _ in range(2)
    ]
    assert theme.png(figures[0]) == theme.png(figures[1])
    drawn(figures[0])
    shown = lines(figures[0])
    assert "Filters of conv2 before and after: 32 the same, 32 changed" in shown
    assert any("unrelated filters reach 0.25" in line for line in shown)


def test_a_figure_of_very_many_pairs_leaves_out_the_last(rng: np.random.Generator) -> None:
    """Those that are the same; the note says how many are shown."""
    statuses: list[Status] = [*["same"] * 250, "changed"]
    pairs = [Pair(0, 0, status, 0.95) for status in statuses]
    sides = layer_view(rng, (3, 3, 1)), layer_view(rng, (3, 3, 1))
    figure = matched_filters.draw(MatchedLayer(Match("conv1", pairs, 0.2), *sides))
    drawn(figure)
    shown = lines(figure)
    assert (shown.count("same 0.95"), shown.count("changed 0.95")) == (199, 1)
    assert "Filters of conv1 before and after: 250 the same, 1 changed" in shown
    assert any("; the first 200 pairs shown" in line for line in shown)
