"""The page of each filter in the report: what its template, filter_pages.html, shows."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cnn.report import html, layers, sheets, verdicts
from cnn.report.layers import Layer
from cnn.report.verdicts import Row, Verdict

MOST_PAGES = 256  # of a layer; more would make the report too big to send
_SIDE = 84  # pixels at most of a patch's picture, which is enlarged by a whole number


@dataclass(frozen=True)
class Picture:
    """A picture as an address, and its size in pixels on the page."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Patch:
    """One patch with its projection and its row of the patches table."""

    picture: Picture
    projection: Picture
    row: Any


@dataclass(frozen=True)
class Page:
    """One filter's page."""

    layer: Layer
    row: Row
    verdict: Verdict
    kernel: Picture
    patches: list[Patch]
    n_tied: int

    @property
    def classes(self) -> list[tuple[str, float | None, float]]:
        """Name, mean activation (null without images) and length of the bar of each class."""
        means = [_known(value) for value in self.row["class_means"]]
        largest = max((value for value in means if value is not None), default=0.0) or 1.0
        lengths = [100 * (value or 0) / largest for value in means]
        return list(zip(self.layer.class_names, means, lengths, strict=True))

    @property
    def bars(self) -> list[tuple[int, float]]:
        """Number of positions, and height of the bar in per cent, of each bin."""
        counts = [int(n) for n in self.row["histogram"]]
        most = math.log1p(max(counts)) or 1.0
        return [(n, 100 * math.log1p(n) / most) for n in counts]


def anchor(layer: str, number: float | None) -> str:
    """Return the name of a filter's page within the report."""
    return f"filter-{layer}-{number:.0f}"


def of(layer: Layer) -> list[Page]:
    """Return the pages of a layer's filters, at most MOST_PAGES."""
    by_filter: Mapping[Any, pd.DataFrame] = dict(iter(layer.patches.groupby("filter")))
    return [
        _page(layer, row, by_filter.get(row["filter"], layer.patches[:0]))
        for row in layer.rows[:MOST_PAGES]
    ]


def _page(layer: Layer, row: Row, mined: pd.DataFrame) -> Page:
    f = row["filter"]
    patches = [
        Patch(
            _picture(_without_colour(sheets.picture(layer.pixels[f, item.rank - 1])), _SIDE),
            _picture(layers.projection_picture(layer.projected[f, item.rank - 1]), _SIDE),
            item,
        )
        for item in mined.sort_values("rank").itertuples()
        if item.rank <= layer.projected.shape[1]
    ]
    n_tied = int(mined["n_tied"].max()) if len(mined) else 0
    return Page(layer, row, verdicts.of(row), _picture(layer.kernel_picture(f), 2 * _SIDE), patches, n_tied)


def _picture(pixels: NDArray[np.uint8], side: int) -> Picture:
    """Return a picture that the page enlarges to `side` pixels at most."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    height, width = pixels.shape[:2]
    zoom = max(1, side // max(height, width))
    return Picture(html.data_uri(stream.getvalue()), zoom * width, zoom * height)


def _without_colour(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a grey picture as (h, w), which is a third of the bytes."""
    is_grey = (picture == picture[..., :1]).all()
    return np.ascontiguousarray(picture[..., 0] if is_grey else picture)


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
