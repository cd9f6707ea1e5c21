"""Contact sheets of a layer: its kernels, their most activating patches, views of those."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cnn.explain.views.base import View
from cnn.formatting import size_words
from cnn.report.figures import contact_sheet, theme
from cnn.report.figures.contact_sheet import Sheet, Tile
from cnn.report.filter_status import Row

MOST_ROWS = 64  # filters on a sheet with a row for each; a taller sheet is unreadable
_MOST_KERNELS, _MOST_COLUMNS = 144, 12  # more would be too small to read
_N_RANKS = 12
_CAPTION = 64  # pixels, the widest line below a patch
_N_VIEWED = 9  # patches of a filter that have a view beside them


@dataclass(frozen=True)
class ExplainedLayer:
    """Everything the report shows of one layer's filters.

    rows: rows of the filters table, by filter; null means unknown. patches: rows of the patches
    table, by filter and rank. kernels: (f, h, w, c); (0, 0, 0, 0) for a pool, which has none.
    pixels: (f, k, h, w, c); views: arrays of the same shape, by name. only: the numbers of the
    filters shown; None for all. lowest: whether the patches are the least activating ones.
    """

    name: str
    rows: Sequence[Row]
    kernels: NDArray[np.float32]
    pixels: NDArray[Any]
    views: Mapping[str, NDArray[np.float32]]
    patches: Sequence[Row]
    class_names: Sequence[str]
    only: Sequence[int] | None = None
    lowest: bool = False

    @property
    def shown(self) -> Sequence[int]:
        """The numbers of the filters shown."""
        return range(len(self.pixels)) if self.only is None else self.only

    @property
    def of_image(self) -> bool:
        """Whether the kernels are applied to the pixels of the image."""
        return self.kernels.shape[1:] == self.pixels.shape[2:]

    @property
    def scale(self) -> float:
        """The largest absolute weight: both ends of the colour scale of all kernels."""
        return float(np.abs(self.kernels).max()) or 1.0

    @property
    def kernel_words(self) -> str:
        """How to read a drawn kernel."""
        n_channels = self.kernels.shape[-1]
        if self.of_image and n_channels == 3:
            return "weights for red, green and blue drawn as one colour, grey is 0"
        if self.of_image and n_channels == 1:
            return "red weights raise the activation where the image is bright, blue ones lower it"
        return (
            f"one small square for each of the {n_channels} input channels, in rows; red weights "
            "raise the activation, blue ones lower it"
        )

    def kernel_picture(self, f: int) -> NDArray[np.uint8]:
        """Return a filter's kernel as an image on the colour scale of the layer."""
        return contact_sheet.kernel_image(self.kernels[f], self.scale, self.of_image)


def filters(layer: ExplainedLayer) -> Figure:
    """Return a figure of a layer's kernels on one symmetric scale with zero in the middle."""
    tiles = [
        Tile(
            layer.kernel_picture(row["filter"]),
            [f"{row['filter']} dead" if row["dead"] else str(row["filter"])],
            theme.RED if row["dead"] else theme.INK,
        )
        for row in layer.rows[:_MOST_KERNELS]
    ]
    n_columns = min(int(np.ceil(np.sqrt(len(tiles)))), _MOST_COLUMNS)
    size = size_words(layer.kernels.shape[1:3])
    note = (
        f"{len(tiles)} kernels of {size} weights on one scale, filter number below each\n"
        f"{layer.kernel_words}"
    )
    title = f"Filters of {layer.name}{_part(tiles, layer)}"
    has_scale = not (layer.of_image and layer.kernels.shape[-1] == 3)
    rows = contact_sheet.grid(tiles, n_columns)
    figure = Sheet(title, note, rows, room_right=122 if has_scale else 0).draw()
    if has_scale:
        _add_scale(figure, layer)
    return figure


def _part(shown: Sequence[Any], layer: ExplainedLayer) -> str:
    """Return how many filters a figure shows, for its title; "" if it shows all."""
    n_filters = len(layer.shown)
    return f" (the first {len(shown)} of {n_filters:,})" if len(shown) < n_filters else ""


def _add_scale(figure: Figure, layer: ExplainedLayer) -> None:
    axes = figure.add_axes((0.885, 0.1, 0.022, 0.75))
    bar = figure.colorbar(contact_sheet.colour_scale(layer.scale), cax=axes)
    label = "weight (for pixels scaled to 0..1)" if layer.of_image else "weight"
    bar.set_label(label, fontsize=theme.TEXT, color=theme.INK)
    bar.ax.tick_params(labelsize=theme.TEXT)
    bar.ax.yaxis.set_major_locator(MaxNLocator(7))
    bar.ax.yaxis.set_major_formatter("{x:.2g}")


def patches(layer: ExplainedLayer, most: int = MOST_ROWS) -> Figure:
    """Return a figure of each filter's most activating patches, one row per filter.

    most: the most filters to show. Each row starts with the kernel if the kernels are applied to
    the pixels of the image.
    """
    by_place = {(row["filter"], row["rank"]): row for row in layer.patches}
    k, *size, _ = layer.pixels.shape[1:]
    ranks = range(1, min(k, _N_RANKS) + 1)
    empty = Tile(np.full((*size, 3), 255, np.uint8), ["never fires"], theme.RED)
    rows: list[list[Tile | None]] = []
    for f in layer.shown[:most]:
        tiles = [_patch_tile(layer.pixels, by_place, f, rank) for rank in ranks]
        if (f, 1) not in by_place:
            tiles[0] = empty
        kernel = [Tile(layer.kernel_picture(f))] if layer.of_image else []
        rows.append([*kernel, *tiles])
    split = layer.patches[0]["split"] if layer.patches else ""
    extreme, degree = ("weakest", "least") if layer.lowest else ("strongest", "most")
    note = (
        f"the {len(ranks)} {extreme} patches of {size_words(size)} pixels in the {split} images, "
        "pixel values 0..255; below each: activation and label"
    )
    return Sheet(
        f"What {degree} activates each filter of {layer.name}{_part(rows, layer)}",
        note,
        rows,
        [str(f) for f in layer.shown[:most]],
        ["kernel"] * layer.of_image + ["rank 1", *(str(rank) for rank in ranks[1:])],
        gaps={1: 10} if layer.of_image else {},
        most_lines=2,
    ).draw()


def _patch_tile(pixels: NDArray[Any], by_place: Any, f: int, rank: int) -> Tile | None:
    row = by_place.get((f, rank))
    if row is None:
        return None
    activation, name = (
        f"{row['activation']:.2f}",
        theme.class_label(row["label_name"], row["label"]),
    )
    one_line = f"{activation}   {name}"
    fits = theme.text_width(one_line, theme.SMALL) < _CAPTION
    return Tile(contact_sheet.rgb(pixels[f, rank - 1]), [one_line] if fits else [activation, name])


def view(layer: ExplainedLayer, view: View, most: int = MOST_ROWS) -> Figure:
    """Return a figure of each filter's nine strongest patches with a view of each beside them.

    most: the most filters to show. As in Zeiler and Fergus 2014, figure 2.
    """
    by_filter: dict[int, list[Row]] = {}
    for row in layer.patches:
        by_filter.setdefault(row["filter"], []).append(row)
    tiles = [
        _view_tile(layer.pixels[f], layer.views[view.name][f], f, by_filter.get(f, [])[:_N_VIEWED])
        for f in layer.shown[:most]
    ]
    note = f"left: the nine strongest patches; {view.note}; below: filter, activations, labels"
    title = view.title.format(layer=layer.name) + _part(tiles, layer)
    return Sheet(title, note, contact_sheet.grid(tiles, 3), most_lines=2).draw()


def _view_tile(
    pixels: NDArray[Any], viewed: NDArray[np.float32], f: int, rows: Sequence[Row]
) -> Tile:
    """Return one filter's patches with a view of each to their right."""
    patches = [contact_sheet.rgb(pixels[row["rank"] - 1]) for row in rows]
    beside = [view_image(viewed[row["rank"] - 1]) for row in rows]
    left, right = (
        contact_sheet.mosaic(_filled(part), 3, pixels.shape[1:3]) for part in (patches, beside)
    )
    gap = np.full((len(left), 3, 3), 255, np.uint8)
    span = f": {rows[0]['activation']:.2f} to {rows[-1]['activation']:.2f}" if rows else ""
    labels = Counter(theme.class_label(row["label_name"], row["label"]) for row in rows)
    words = ", ".join(f"{name} ({n})" for name, n in labels.most_common()) or "never fires"
    lines = [f"filter {f}{span}", words]
    return Tile(np.hstack([left, gap, right]), lines, theme.INK if rows else theme.RED)


def _filled(images: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8] | None]:
    return [*images, *[None] * (_N_VIEWED - len(images))]


def view_image(viewed: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a view (h, w, c) as an image (h, w, 3) on a scale of its own."""
    return contact_sheet.kernel_image(viewed, float(np.abs(viewed).max()) or 1.0)
