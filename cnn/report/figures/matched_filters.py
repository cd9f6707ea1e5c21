"""Matched filters of two models side by side, as a figure."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cnn.compare import summary
from cnn.compare.comparison import LayerView, MatchedLayer
from cnn.compare.matching import Pair, Status
from cnn.report.figures import contact_sheet, theme
from cnn.report.figures.contact_sheet import Sheet, Tile

_N_COLUMNS = 5
_MOST_PAIRS = 200  # in a figure; a taller one is unreadable
_NOTHING = 235  # grey in place of the missing filter of a pair
_ORDER: tuple[Status, ...] = ("new", "lost", "changed", "dead", "same")
_COLOURS = {"new": theme.GREEN, "lost": theme.RED, "changed": theme.ORANGE, "dead": theme.FAINT}


def draw(layer: MatchedLayer) -> Figure:
    """Return a figure of a layer's pairs, the earlier filter left and the later one right.

    New, lost and changed filters come first. The figure shows kernels if they are applied to the
    pixels of the image, else the strongest patches.
    """
    match, scale = layer.match, _Scale(layer)
    pairs = sorted(match.pairs, key=lambda pair: _ORDER.index(pair.status))[:_MOST_PAIRS]
    part = f"; the first {len(pairs)} pairs shown" if len(pairs) < len(match.pairs) else ""
    note = (
        f"left: before, right: after; {scale.note}{part}\n"
        "below: filter numbers and the correlation of their activations on the same test images; "
        f"unrelated filters reach {match.null:.2f}"
    )
    title = f"Filters of {match.layer} before and after: {_counted(match.pairs)}"
    return Sheet(title, note, list(_rows(pairs, scale))).draw()


def _counted(pairs: list[Pair]) -> str:
    statuses = [pair.status for pair in pairs]
    return summary.filter_words({status: statuses.count(status) for status in _ORDER})


def _rows(pairs: list[Pair], scale: "_Scale") -> Iterator[list[Tile | None]]:
    """Yield rows of tiles; each status starts a new row."""
    for status in _ORDER:
        tiles = [scale.tile(pair) for pair in pairs if pair.status == status]
        for row in contact_sheet.grid(tiles, _N_COLUMNS):
            yield [*row, *[None] * (_N_COLUMNS - len(row))]


class _Scale:
    """How the filters of a layer are drawn, on the same scale for both models."""

    def __init__(self, layer: MatchedLayer) -> None:
        sides = (layer.before, layer.after)
        self._sides = sides
        self._shows_kernels = all(side.of_image for side in sides)
        self._largest = max(float(np.abs(side.kernels).max()) for side in sides) or 1.0
        self._shape = np.max([self._image(side, 0).shape[:2] for side in sides], axis=0)

    @property
    def note(self) -> str:
        """What the figure shows of each filter, as text."""
        if not self._shows_kernels:
            return "each filter's four strongest patches in the test images"
        if self._sides[0].kernels.shape[-1] == 3:
            return "kernels in red, green and blue, grey is 0"
        return f"kernels from blue, {-self._largest:.2g}, to red, {self._largest:.2g}; white is 0"

    def tile(self, pair: Pair) -> Tile:
        """Return both filters of a pair, with a grey field in place of a missing one."""
        left = self._placed(self._sides[0], pair.before)
        right = self._placed(self._sides[1], pair.after)
        gap = np.full((len(left), len(left) // 6, 3), 255, np.uint8)
        colour = _COLOURS.get(pair.status, theme.INK)
        return Tile(np.hstack([left, gap, right]), self._lines(pair), colour)

    def _lines(self, pair: Pair) -> list[str]:
        numbers = ("none" if i is None else str(i) for i in (pair.before, pair.after))
        value = "" if pair.correlation is None else f" {pair.correlation:.2f}"
        filters = zip(self._sides, (pair.before, pair.after), strict=True)
        silent = any(i is not None and not side.largest[i] for side, i in filters)
        return [" \N{RIGHTWARDS ARROW} ".join(numbers), pair.status + value] + (
            ["never fires"] if silent else []
        )

    def _placed(self, side: LayerView, i: int | None) -> NDArray[np.uint8]:
        """Return a filter's image in the middle of a field of the common size."""
        field = np.full((*self._shape, 3), _NOTHING if i is None else 255, np.uint8)
        if i is not None:
            image = self._image(side, i)
            y, x = (np.array(field.shape[:2]) - image.shape[:2]) // 2
            field[y : y + image.shape[0], x : x + image.shape[1]] = image
        return field

    def _image(self, side: LayerView, i: int) -> NDArray[np.uint8]:
        if self._shows_kernels:
            return contact_sheet.kernel_image(side.kernels[i], self._largest)
        pixels = side.patches.pixels[i]
        ranks = {row["rank"] for row in side.patches.rows if row["filter"] == i}
        shown = [
            contact_sheet.rgb(pixels[rank - 1]) if rank in ranks else None
            for rank in range(1, len(pixels) + 1)
        ]
        return contact_sheet.mosaic(shown, 2, pixels.shape[1:3])
