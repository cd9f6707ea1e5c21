"""The pages of single filters in the report: the values for filter_pages.html."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn.explain.views.base import MAX_RANKS
from cnn.report import filter_status
from cnn.report.figures import contact_sheet, layers
from cnn.report.figures.layers import ExplainedLayer
from cnn.report.filter_status import FilterStatus, Row
from cnn.report.pages import html

MOST_PAGES = 256  # per layer; more would make the report too large to send
_SIDE = 80  # pixels, the longest side of a patch, which is enlarged by a whole number


@dataclass(frozen=True)
class InlineImage:
    """An image as a data URI, and its size in pixels on the page."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Patch:
    """One patch with its views by name, and its row of the patches table."""

    image: InlineImage
    views: dict[str, InlineImage]
    row: Row


@dataclass(frozen=True)
class Page:
    """One filter's page: its row of the filters table, its images, and its patch counts."""

    layer: ExplainedLayer
    row: Row
    status: FilterStatus
    kernel: InlineImage
    patches: list[Patch]
    n_mined: int
    n_tied: int

    @property
    def largest_mean(self) -> float:
        """The largest mean activation over the images of a class."""
        return max((mean for mean in self.row["class_means"] if _is_known(mean)), default=0.0)

    @property
    def classes(self) -> list[tuple[str, float | None]]:
        """Each class's name and mean activation as a share of the largest, None without images."""
        largest = self.largest_mean or 1.0
        means = self.row["class_means"]
        shares = [mean / largest if _is_known(mean) else None for mean in means]
        return list(zip(self.layer.class_names, shares, strict=True))

    @property
    def bars(self) -> list[tuple[int, float]]:
        """Number of positions and height of the bar in per cent, for each bin."""
        counts = [int(n) for n in self.row["histogram"]]
        most = math.log1p(max(counts)) or 1.0
        return [(n, 100 * math.log1p(n) / most) for n in counts]


def anchor(layer: str, number: float | None) -> str:
    """Return the HTML id of a filter's page within the report."""
    return f"filter-{layer}-{number:.0f}"


def of(layer: ExplainedLayer) -> list[Page]:
    """Return the pages of a layer's filters, at most MOST_PAGES."""
    by_filter: dict[int, list[Row]] = {}
    for patch in layer.patches:
        by_filter.setdefault(patch["filter"], []).append(patch)
    return [_page(layer, row, by_filter.get(row["filter"], [])) for row in layer.rows[:MOST_PAGES]]


def _page(layer: ExplainedLayer, row: Row, mined: Sequence[Row]) -> Page:
    """Return a filter's page.

    mined: the filter's rows of the patches table, by rank.
    """
    f = row["filter"]
    patches = [
        Patch(
            _inline(_without_colour(contact_sheet.rgb(layer.pixels[f, patch["rank"] - 1])), _SIDE),
            {
                name: _inline(layers.view_image(array[f, patch["rank"] - 1]), _SIDE)
                for name, array in layer.views.items()
            },
            patch,
        )
        for patch in mined[:MAX_RANKS]
    ]
    kernel = _inline(layer.kernel_picture(f), 2 * _SIDE)
    n_tied = mined[0]["n_tied"] if mined else 0
    return Page(layer, row, filter_status.of(row), kernel, patches, len(mined), n_tied)


def _inline(pixels: NDArray[np.uint8], side: int) -> InlineImage:
    """Return an image that the page enlarges to at most `side` pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    height, width = pixels.shape[:2]
    zoom = max(1, side // max(height, width))
    return InlineImage(html.data_uri(stream.getvalue()), zoom * width, zoom * height)


def _without_colour(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a grey image as (h, w), which takes a third of the bytes."""
    is_grey = (image == image[..., :1]).all()
    return np.ascontiguousarray(image[..., 0] if is_grey else image)


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
