"""Contact sheets: many small images in a grid, each with a few lines of text below it.

A sheet draws all its tiles as one image in pixel coordinates. So hundreds of tiles cost little,
and each pixel of a tile covers a whole number of figure pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from cnn.report.figures import theme

DIVERGING = "RdBu_r"
_COLOURS = colormaps[DIVERGING](np.arange(256), bytes=True)[:, :3]
_MARGIN, _TOP, _GAP, _LINE = 22, 76, 9, 19  # pixels
_MOST_NOTE_LINES = 3  # into which one long line of a note is broken
_GREY = 190  # between the channels of a kernel, where white means 0


@dataclass(frozen=True)
class Tile:
    """One image (h, w, 3), uint8, with lines of text below it in the given colour."""

    image: NDArray[np.uint8]
    lines: Sequence[str] = ()
    colour: str = theme.INK


@dataclass(frozen=True)
class Sheet:
    """Rows of tiles with a title, a note below it, and names of rows and columns.

    room_right: pixels left free at the right. most_lines: lines into which a long line below a
    tile is broken at most. gaps: extra pixels to the left of a column.
    """

    title: str
    note: str
    rows: Sequence[Sequence[Tile | None]]
    row_names: Sequence[str] = ()
    column_names: Sequence[str] = ()
    room_right: int = 0
    most_lines: int = 4
    gaps: dict[int, int] = field(default_factory=dict)

    def draw(self) -> Figure:
        """Return the figure."""
        place = _Places(self)
        figure = theme.figure(place.height)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, theme.WIDTH)
        axes.set_ylim(place.height, 0)
        axes.axis("off")
        canvas = np.full((place.height, theme.WIDTH, 3), 255, np.uint8)
        for i, row in enumerate(self.rows):
            for j, tile in enumerate(row):
                if tile is not None:
                    self._put(canvas, axes, place, i, j, tile)
        axes.add_artist(_Canvas(canvas))
        self._name(axes, place)
        return figure

    def _put(
        self, canvas: NDArray[np.uint8], axes: Axes, place: "_Places", i: int, j: int, tile: Tile
    ) -> None:
        x, y = place.left(j), place.top(i)
        image = place.fit(tile.image)
        canvas[y : y + len(image), x : x + image.shape[1]] = image
        axes.text(
            x + image.shape[1] / 2,
            y + place.tile_height + 4,
            "\n".join(place.lines(tile)),
            fontsize=theme.SMALL,
            color=tile.colour,
            ha="center",
            va="top",
            linespacing=1.25,
            parse_math=False,
        )

    def _name(self, axes: Axes, place: "_Places") -> None:
        """Write the title, the note, and the names of rows and columns."""
        axes.text(_MARGIN, 16, self.title, fontsize=theme.TITLE, color=theme.INK, va="top")
        note = "\n".join(place.note_lines)
        axes.text(_MARGIN, 42, note, fontsize=theme.SMALL, color=theme.FAINT, va="top")
        for i, name in enumerate(self.row_names):
            middle = place.top(i) + place.tile_height / 2
            axes.text(_MARGIN, middle, name, fontsize=theme.TEXT, color=theme.INK, va="center")
        for j, name in enumerate(self.column_names):
            middle = place.left(j) + place.tile_width / 2
            axes.text(
                middle,
                place.head,
                name,
                fontsize=theme.SMALL,
                color=theme.FAINT,
                ha="center",
                va="top",
            )


class _Canvas(Artist):
    """Pixels (h, w, 3) of a whole figure, copied unchanged; imshow would resample them."""

    zorder = 0

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        super().__init__()
        self._pixels = pixels

    def draw(self, renderer: RendererBase) -> None:
        """Draw the pixels; a renderer takes RGBA with the last row first."""
        opaque = np.full((*self._pixels.shape[:2], 1), 255, np.uint8)
        upwards = np.ascontiguousarray(np.dstack([self._pixels, opaque])[::-1])
        renderer.draw_image(renderer.new_gc(), 0, 0, upwards)


class _Places:
    """Where everything goes, in pixels from the top left."""

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet
        n_columns = max(len(row) for row in sheet.rows)
        tiles = [tile for row in sheet.rows for tile in row if tile is not None]
        tile_height, tile_width = map(int, tiles[0].image.shape[:2]) if tiles else (1, 1)
        self._first = _MARGIN + (52 if sheet.row_names else 0)
        room = theme.WIDTH - self._first - _MARGIN - sheet.room_right - sum(sheet.gaps.values())
        self.column = room // n_columns
        zoom = (self.column - _GAP) / tile_width
        zoom = int(zoom) if zoom >= 1 else zoom
        self.tile_height = max(1, int(tile_height * zoom))
        self.tile_width = max(1, int(tile_width * zoom))
        n_lines = max((len(self.lines(tile)) for tile in tiles), default=0)
        self.row = self.tile_height + n_lines * _LINE + _GAP + 4
        self.note_lines = [
            part
            for line in sheet.note.split("\n")
            for part in _wrapped(line, theme.WIDTH - 2 * _MARGIN, _MOST_NOTE_LINES)
        ]
        self.head = _TOP + _LINE * (len(self.note_lines) - 1)
        self._top = self.head + (26 if sheet.column_names else 0)
        self.height = self._top + self.row * len(sheet.rows) + _MARGIN // 2

    def lines(self, tile: Tile) -> list[str]:
        """Return a tile's lines of text, long ones wrapped."""
        return [
            part
            for line in tile.lines
            for part in _wrapped(line, self.column - _GAP, self._sheet.most_lines)
        ]

    def fit(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an image in the tiles' size: pixels repeated, or averaged to make it smaller."""
        grows = self.tile_width >= image.shape[1]
        method = Image.Resampling.NEAREST if grows else Image.Resampling.BOX
        size = (self.tile_width, self.tile_height)
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, method))

    def left(self, j: int) -> int:
        shift = sum(gap for column, gap in self._sheet.gaps.items() if column <= j)
        return self._first + shift + j * self.column + (self.column - self.tile_width) // 2

    def top(self, i: int) -> int:
        return self._top + i * self.row


def _wrapped(line: str, room: float, most: int) -> tuple[str, ...]:
    """Return a line wrapped to `room` pixels; letters are drawn up to 5 % wider than measured."""
    return theme.wrapped(line, 0.95 * room, theme.SMALL, most)


def grid(tiles: Sequence[Tile], n_columns: int) -> list[list[Tile | None]]:
    """Return tiles in rows of n_columns."""
    return [list(tiles[start : start + n_columns]) for start in range(0, len(tiles), n_columns)]


def mosaic(
    images: Sequence[NDArray[np.uint8] | None] | NDArray[np.uint8],
    n_columns: int,
    shape: tuple[int, int],
    line: int = 255,
) -> NDArray[np.uint8]:
    """Return images (h, w, 3) of one shape as one image: rows of n_columns, lines between them."""
    height, width = shape
    n_rows = -(-len(images) // n_columns)
    size = (n_rows * (height + 1) - 1, n_columns * (width + 1) - 1, 3)
    whole = np.full(size, line, np.uint8)
    for i, image in enumerate(images):
        if image is not None:
            y, x = i // n_columns * (height + 1), i % n_columns * (width + 1)
            whole[y : y + height, x : x + width] = image
    return whole


def rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an image (h, w, 1 or 3), pixels 0..255, as (h, w, 3)."""
    whole = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return np.broadcast_to(whole, (*whole.shape[:2], 3)) if whole.shape[-1] == 1 else whole


def kernel_image(
    kernel: NDArray[np.float32], largest: float, of_image: bool = True
) -> NDArray[np.uint8]:
    """Return a kernel (h, w, channels) as colours on a scale from -largest to largest.

    A single channel takes the diverging colours, white at 0. The three channels of a colour
    image become red, green and blue, grey at 0. The channels of a deeper layer become one small
    image each, in rows.
    """
    if of_image and kernel.shape[-1] == 3:
        return np.asarray((0.5 + 0.5 * kernel / largest) * 255, np.uint8)
    height, width, n_channels = kernel.shape
    levels = np.clip((0.5 + 0.5 * kernel / largest) * 256, 0, 255).astype(np.uint8)
    planes = _COLOURS[np.moveaxis(levels, -1, 0)]
    return mosaic(planes, int(np.ceil(np.sqrt(n_channels))), (height, width), _GREY)


def colour_scale(largest: float) -> ScalarMappable:
    """Return the symmetric colour scale that all kernels of a figure share."""
    return ScalarMappable(Normalize(-largest, largest), DIVERGING)
