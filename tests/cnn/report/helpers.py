"""Helpers of the report's tests: figures as pixels and text, parsed pages, other data sets."""

import base64
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from cnn.data.dataset import Dataset
from cnn.report.figures import contact_sheet, theme
from cnn.report.pages import body, html
from cnn.report.pages.body import Material

VOID = {"img", "br", "hr", "meta", "link"}


def pixels_of(png: bytes) -> NDArray[np.uint8]:
    """Return a PNG's pixels, (h, w, 3)."""
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))


def drawn(figure: Figure) -> NDArray[np.uint8]:
    """Return a figure's pixels, (h, 1040, 3); all of its text must lie inside it."""
    pixels = pixels_of(theme.png(figure))
    assert pixels.shape[1] == 1040
    left, bottom, right, top = figure.get_tightbbox().extents * figure.dpi
    assert min(left, bottom) > -0.5, "cut off at the left or at the bottom"
    assert (right < 1040.5, top < len(pixels) + 0.5) == (True, True), "cut off"
    return pixels


def draw_all(material: Material) -> dict[str, Figure]:
    """Return every figure of a report, by name."""
    return body._figures(material, 24) | body._figures_of_layers(body.layers_of(material))


def texts(figure: Figure) -> list[Text]:
    """Return every visible text of a figure."""
    found: list[Text] = figure.findobj(Text)
    return [text for text in found if text.get_text() and text.get_visible()]


def lines(figure: Figure) -> list[str]:
    """Return every line of text in a figure."""
    return [line for text in texts(figure) for line in text.get_text().split("\n") if line]


def decoded(uri: str) -> bytes:
    """Return the PNG of a data URI."""
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(data, validate=True)


class ParsedPage(HTMLParser):
    """The parts of an HTML page; fails if tags are not closed in the order they were opened.

    words: words by the id of the filter's page they are on, "" elsewhere. images: each filter
    page's images by their alt text.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.figures: list[bytes] = []
        self.images: dict[str, dict[str, bytes]] = {}
        self.words: dict[str, list[str]] = {"": []}
        self._page = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        if values.get("class") == "filter":
            self._page = values["id"]
            self.images[self._page], self.words[self._page] = {}, []
        if tag == "img" and values.get("class") == "pixels":
            self.images[self._page][values["alt"]] = decoded(values["src"])
        elif tag == "img":
            assert values["alt"]
            self.figures.append(decoded(values["src"]))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words[self._page] += data.split()

    def text(self, page: str | None = None) -> str:
        """Return the words of a filter's page, or of the whole page."""
        pages = self.words.values() if page is None else [self.words[page]]
        return " ".join(word for words in pages for word in words)


def tinted(dataset: Dataset) -> Dataset:
    """Return a data set as colour images: red is the strongest channel, blue the weakest."""
    tint = np.array([1, 0.6, 0.2])
    splits = {
        name: replace(split, images=(split.images * tint).astype(np.uint8))
        for name, split in dataset.splits.items()
    }
    return replace(dataset, splits=splits)


def relabelled(dataset: Dataset, names: tuple[str, ...]) -> Dataset:
    """Return a data set of these classes, with the images spread over them."""
    splits = {
        name: replace(split, labels=np.arange(len(split)) % len(names))
        for name, split in dataset.splits.items()
    }
    return Dataset("folder", names, splits, {})


def crops(material: Material) -> dict[tuple[str, int, int], NDArray[np.uint8]]:
    """Return the boxes of the patches table, cut from the images, by layer, filter and rank.

    Black outside of the image.
    """
    table = material.tables["patches"]
    split = material.dataset.splits[table["split"].iloc[0]]
    side = 100
    padded = np.pad(split.images, ((0, 0), (side, side), (side, side), (0, 0)))
    images = dict(zip(split.ids.tolist(), padded, strict=True))
    return {
        (row.layer, row.filter, row.rank): contact_sheet.rgb(
            images[row.image_id][row.y0 + side : row.y1 + side, row.x0 + side : row.x1 + side]
        )
        for row in table.itertuples()
    }


def written(material: Material, folder: Path) -> tuple[str, ParsedPage]:
    """Write a report; return its body as text and parsed."""
    body.write(folder, material, 24)
    text = (folder / html.BODY_NAME).read_text(encoding="utf-8")
    return text, ParsedPage(text)
