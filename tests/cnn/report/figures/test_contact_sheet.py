"""Contact sheets: kernels as colours, tiles of whole pixels, notes that fit."""

import numpy as np
import pytest

from cnn.report.figures import contact_sheet
from cnn.report.figures.contact_sheet import Sheet, Tile
from tests.cnn.report.helpers import drawn, lines


def test_kernels_are_red_above_0_blue_below_and_nearly_white_at_0() -> None:
    """One symmetric scale: the same weight has the same colour in every kernel."""
    kernel = np.array([[[-2.0], [-1.0], [0.0], [1.0], [2.0]]], np.float32)
    found = contact_sheet.kernel_image(kernel, 2.0).astype(int)[0]
    np.testing.assert_array_equal(found[0], [5, 48, 97])
    np.testing.assert_array_equal(found[4], [103, 0, 31])
    assert found[2].min() > 240
    assert found[1][2] > found[1][0] + 50
    assert found[3][0] > found[3][2] + 50
    alone = contact_sheet.kernel_image(kernel[:, 3:4], 2.0)
    np.testing.assert_array_equal(alone[0, 0], found[3])


def test_kernels_of_colour_images_are_drawn_in_colour() -> None:
    """Three channels are red, green and blue around a grey 0."""
    kernel = np.array([[[0, 0, 0], [1, -1, 0], [-1, 0, 1]]], np.float32)
    found = contact_sheet.kernel_image(kernel, 1.0)[0]
    np.testing.assert_array_equal(found, [[127, 127, 127], [255, 0, 127], [0, 127, 255]])


def test_tiles_are_whole_numbers_of_pixels(rng: np.random.Generator) -> None:
    """Each pixel of a tile is one square of exactly its colour; nothing is blurred."""
    image = rng.permutation(np.arange(1, 241, dtype=np.uint8))[: 5 * 4 * 3].reshape(5, 4, 3)
    tile = Tile(image, ["a line", "another"])
    pixels = drawn(Sheet("Title", "note", [[tile, None, tile]]).draw())
    sides, corners = set(), {}
    for (y, x), _ in np.ndenumerate(image[..., 0]):
        rows, columns = np.nonzero((pixels == image[y, x]).all(axis=2))
        half = columns < columns.mean()
        side = np.ptp(rows) + 1
        assert np.ptp(columns[half]) + 1 == side
        assert half.sum() == side**2 == len(rows) - half.sum()
        sides.add(int(side))
        corners[y, x] = (rows.min() // side, columns[half].min() // side)
    assert len(sides) == 1
    top, left = corners[0, 0]
    assert corners == {(y, x): (top + y, left + x) for y, x in corners}


@pytest.mark.parametrize("size", [(300, 300), (40, 1200)])
def test_images_wider_than_their_column_are_made_smaller(size: tuple[int, int]) -> None:
    """No tile covers another, and none is cut off."""
    shades = range(10, 170, 10)
    tiles = [Tile(np.full((*size, 3), shade, np.uint8)) for shade in shades]
    sheet = Sheet("Title", "note", contact_sheet.grid(tiles, 8), ["a", "b"], gaps={1: 10})
    pixels = drawn(sheet.draw())
    areas = [int((pixels == shade).all(axis=2).sum()) for shade in shades]
    assert min(areas) > 0.9 * max(areas) > 0


def test_a_long_note_is_wrapped_above_the_tiles() -> None:
    """The tiles move down by as many lines."""
    tile = Tile(np.full((9, 9, 3), 7, np.uint8))
    tops = []
    for note in ("short", "word " * 60 + "\nsecond"):
        figure = Sheet("Title", note, [[tile]]).draw()
        tops.append(int(np.nonzero((drawn(figure) == 7).all(axis=2))[0][0]))
    n_lines = len(lines(figure)) - 1
    assert n_lines > 2
    assert lines(figure)[-1] == "second"
    assert tops[1] - tops[0] == 19 * (n_lines - 1)
