"""Pairs of filters of two trainings, side by side, and what is written of a comparison.

Here the work of the step compare_models begins.
"""

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
_MOST_PAIRS = 200  # in a figure; more do not make a picture
_NOTHING = 235  # grey in place of a filter that has no like
_ORDER: tuple[Status, ...] = ("new", "lost", "changed", "dead", "same")
_COLOURS = {"new": theme.GREEN, "lost": theme.RED, "changed": theme.ORANGE, "dead": theme.FAINT}


def draw(layer: MatchedLayer) -> Figure:
    """Return a layer's pairs, each with the earlier filter left and the later one right.

    Those that are new, lost or changed come first. Kernels are drawn where they weigh the
    image's pixels; where they do not, the strongest patches are.
    """
    match, scale = layer.match, _Scale(layer)
    pairs = sorted(match.pairs, key=lambda pair: _ORDER.index(pair.status))[:_MOST_PAIRS]
    note = (
        f"left: before, right: after; {scale.note}\n"
        "below: their numbers and the correlation of their activations on the same test images; "
        f"unrelated filters reach {match.null:.2f}"
    )
    part = f"the first {len(pairs)} of " if len(pairs) < len(match.pairs) else ""
    title = f"Filters of {match.layer} before and after: {part}{_counted(match.pairs)}"
    return Sheet(title, note, list(_rows(pairs, scale))).draw()


def _counted(pairs: list[Pair]) -> str:
    found = [pair.status for pair in pairs]
    return summary.filter_words({status: found.count(status) for status in _ORDER})


def _rows(pairs: list[Pair], scale: "_Scale") -> Iterator[list[Tile | None]]:
    """Yield rows of tiles; every status begins a row."""
    for status in _ORDER:
        tiles = [scale.tile(pair) for pair in pairs if pair.status == status]
        for row in contact_sheet.grid(tiles, _N_COLUMNS):
            yield [*row, *[None] * (_N_COLUMNS - len(row))]


class _Scale:
    """How the filters of a layer are drawn, the same for both models."""

    def __init__(self, layer: MatchedLayer) -> None:
        looks = (layer.before, layer.after)
        self._sides = looks
        self._are_pictures = all(look.of_image for look in looks)
        self._largest = max(float(np.abs(look.kernels).max()) for look in looks) or 1.0
        self._shape = np.max([self._picture(look, 0).shape[:2] for look in looks], axis=0)

    @property
    def note(self) -> str:
        """What is drawn, in words."""
        if not self._are_pictures:
            return "of each filter the four strongest patches in the test images"
        if self._sides[0].kernels.shape[-1] == 3:
            return "kernels in red, green and blue, grey is 0"
        return f"kernels, blue {-self._largest:.2g} to red {self._largest:.2g}, white is 0"

    def tile(self, pair: Pair) -> Tile:
        """Return both filters of a pair, a grey field in place of one that is not there."""
        left = self._placed(self._sides[0], pair.before)
        right = self._placed(self._sides[1], pair.after)
        gap = np.full((len(left), len(left) // 6, 3), 255, np.uint8)
        colour = _COLOURS.get(pair.status, theme.INK)
        return Tile(np.hstack([left, gap, right]), self._lines(pair), colour)

    def _lines(self, pair: Pair) -> list[str]:
        numbers = ("none" if i is None else str(i) for i in (pair.before, pair.after))
        value = "" if pair.correlation is None else f" {pair.correlation:.2f}"
        alone = zip(self._sides, (pair.before, pair.after), strict=True)
        silent = any(i is not None and not look.largest[i] for look, i in alone)
        return [" \N{RIGHTWARDS ARROW} ".join(numbers), pair.status + value] + (
            ["never fires"] if silent else []
        )

    def _placed(self, look: LayerView, i: int | None) -> NDArray[np.uint8]:
        """Return a filter's picture in the middle of a field of the common size."""
        field = np.full((*self._shape, 3), _NOTHING if i is None else 255, np.uint8)
        if i is not None:
            picture = self._picture(look, i)
            y, x = (np.array(field.shape[:2]) - picture.shape[:2]) // 2
            field[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
        return field

    def _picture(self, look: LayerView, i: int) -> NDArray[np.uint8]:
        if self._are_pictures:
            return contact_sheet.kernel_image(look.kernels[i], self._largest)
        pixels = look.patches.pixels[i]
        there = {row["rank"] for row in look.patches.rows if row["filter"] == i}
        shown = [
            contact_sheet.rgb(pixels[rank - 1]) if rank in there else None
            for rank in range(1, len(pixels) + 1)
        ]
        return contact_sheet.mosaic(shown, 2, pixels.shape[1:3])
