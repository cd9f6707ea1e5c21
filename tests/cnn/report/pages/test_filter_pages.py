"""The filters' pages: every tile is the crop that the table names, every link leads somewhere."""

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cnn.data.dataset import Dataset, Split
from cnn.explain.views import projections
from cnn.report.figures import contact_sheet, layers, theme
from cnn.report.figures.layers import ExplainedLayer
from cnn.report.pages import body, filter_pages, html
from cnn.report.pages.body import Material
from tests.services import hostile

LAYERS = ("conv1", "conv2")


class _Pages(HTMLParser):
    """Collects each filter's page: its pictures by their text, its words, its links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.pictures: dict[str, dict[str, bytes]] = {}
        self.words: dict[str, list[str]] = {}
        self._page = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        if "id" in values:
            self.names.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        if values.get("class") == "filter":
            self._page = values["id"]
            self.pictures[self._page], self.words[self._page] = {}, []
        if tag == "img" and self._page:
            head, _, data = values["src"].partition(",")
            assert head == "data:image/png;base64"
            self.pictures[self._page][values["alt"]] = base64.b64decode(data, validate=True)

    def handle_data(self, data: str) -> None:
        if self._page:
            self.words[self._page] += data.split()

    def text(self, page: str) -> str:
        return " ".join(self.words[page])


def _written(material: Material, folder: Path) -> tuple[str, _Pages]:
    body.write(folder, material, 24)
    text = (folder / html.BODY_NAME).read_text(encoding="utf-8")
    return text, _Pages(text)


def _pixels(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))


@pytest.fixture(scope="module")
def pages(material: Material, tmp_path_factory: pytest.TempPathFactory) -> _Pages:
    """The pages of a report on `digits`."""
    return _written(material, tmp_path_factory.mktemp("report"))[1]


def _crop(image: NDArray[Any], row: Any) -> NDArray[np.uint8]:
    """Return the box of a row of the patches table, black outside of the image."""
    side = 100
    padded = np.pad(image, ((side, side), (side, side), (0, 0)))
    crop = padded[row.y0 + side : row.y1 + side, row.x0 + side : row.x1 + side]
    return np.asarray(np.broadcast_to(crop, (*crop.shape[:2], 3)))


def _crops(material: Material) -> dict[tuple[str, int, int], NDArray[np.uint8]]:
    table = material.tables["patches"]
    split = material.dataset.splits[table["split"].iloc[0]]
    by_id = dict(zip(split.ids.tolist(), split.images, strict=True))
    return {
        (row.layer, row.filter, row.rank): _crop(by_id[row.image_id], row)
        for row in table.itertuples()
    }


def test_every_tile_of_a_page_is_the_crop_that_the_table_names(
    material: Material, pages: _Pages
) -> None:
    """Cut from the data set's image by the table's box; every patch is there, none is more."""
    crops = _crops(material)
    shown = {
        (layer, f, int(text.split()[1])): _pixels(png)
        for layer in LAYERS
        for f in range(len(material.kernels[layer]))
        for text, png in pages.pictures[filter_pages.anchor(layer, f)].items()
        if text.startswith("patch")
    }
    assert shown.keys() == crops.keys()
    for place, crop in crops.items():
        np.testing.assert_array_equal(shown[place], crop, err_msg=str(place))


def test_beside_each_patch_stands_its_projection(material: Material, pages: _Pages) -> None:
    """On a symmetric scale of its own: red above 0, blue below, the strongest at an end."""
    for row in material.tables["patches"].itertuples():
        png = pages.pictures[filter_pages.anchor(row.layer, row.filter)][f"projections {row.rank}"]
        shown = _pixels(png).astype(int)
        values = material.views["projections"][row.layer][row.filter, row.rank - 1, ..., 0]
        strong = 0.2 * np.abs(values).max()
        redness = shown[..., 0] - shown[..., 2]
        assert (redness[values > strong] > 0).all()
        assert (redness[values < -strong] < 0).all()
        strongest = np.unravel_index(np.abs(values).argmax(), values.shape)
        end = [103, 0, 31] if values[strongest] > 0 else [5, 48, 97]
        np.testing.assert_array_equal(shown[strongest], end)


@pytest.mark.parametrize("layer", LAYERS)
def test_every_tile_of_the_figures_is_the_crop_that_the_table_names(
    material: Material, layer: str, tmp_path: Path
) -> None:
    """Each at the place of its filter and rank; only enlarged."""
    one = next(one for one in body.layers_of(material) if one.name == layer)
    pixels = _saved(layers.patches(one), tmp_path)
    crops = {place[1:]: crop for place, crop in _crops(material).items() if place[0] == layer}
    _, _, height, width, _ = one.pixels.shape
    zoom = 60 // height
    for (f, rank), crop in crops.items():
        enlarged = crop.repeat(zoom, axis=0).repeat(zoom, axis=1)
        x = 22 + 52 + (rank - 1) * _column(one) + one.of_image * (_column(one) + 10)
        x += (_column(one) - zoom * width) // 2
        found = pixels[:, x : x + zoom * width]
        tops = [y for y in range(len(found)) if _is_at(found, enlarged, y)]
        assert len(tops) >= 1, (f, rank)
        assert min(abs(y - _top(pixels, f, len(one.kernels))) for y in tops) < 40, (f, rank)


def _saved(made: Any, folder: Path) -> NDArray[np.uint8]:
    theme.save(made, folder / "figure.png")
    return _pixels((folder / "figure.png").read_bytes())


def _column(one: ExplainedLayer) -> int:
    return (1040 - 22 - 52 - 22 - 10 * one.of_image) // (12 + one.of_image)


def _is_at(whole: NDArray[np.uint8], part: NDArray[np.uint8], y: int) -> bool:
    return bool((whole[y : y + 1] == part[:1]).all()) and np.array_equal(
        whole[y : y + len(part)], part
    )


def _top(pixels: NDArray[np.uint8], f: int, n_filters: int) -> float:
    """Return about where a filter's row begins, in pixels from above."""
    head = 102
    return head + f * (len(pixels) - head - 11) / n_filters


@pytest.mark.parametrize("layer", LAYERS)
def test_the_figure_of_projections_has_nine_patches_and_nine_projections_of_each_filter(
    material: Material, layer: str
) -> None:
    """The patches left, the projections right, in rows of three."""
    one = next(one for one in body.layers_of(material) if one.name == layer)
    height, width = one.pixels.shape[2:4]
    for f in range(len(one.kernels)):
        rows = [row for row in one.patches if row["filter"] == f]
        tile = layers._view_tile(one.pixels[f], one.views["projections"][f], f, rows[:9]).picture
        right = 3 * (width + 1) - 1 + 3
        for i, row in enumerate(rows[:9]):
            y, x = i // 3 * (height + 1), i % 3 * (width + 1)
            crop = contact_sheet.rgb(one.pixels[f, row["rank"] - 1])
            back = layers.view_image(one.views["projections"][f, row["rank"] - 1])
            np.testing.assert_array_equal(tile[y : y + height, x : x + width], crop)
            x += right
            np.testing.assert_array_equal(tile[y : y + height, x : x + width], back)


def test_the_projections_are_labelled_as_no_explanation(material: Material) -> None:
    """In the figure itself, which may be shown without the page."""
    made = layers.view(body.layers_of(material)[0], projections.VIEW)
    assert any("projection, not explanation" in text.get_text() for text in made.axes[0].texts)


def test_every_link_leads_to_a_place_of_the_page_and_every_filter_has_its_page(
    material: Material, pages: _Pages
) -> None:
    """No name twice; from a layer to its filters, from each to its neighbours, and back."""
    assert len(set(pages.names)) == len(pages.names)
    assert {link.removeprefix("#") for link in pages.links} <= set(pages.names)
    wanted = [
        filter_pages.anchor(layer, f)
        for layer, kernels in material.kernels.items()
        for f in range(len(kernels))
    ]
    assert list(pages.pictures) == wanted
    assert {f"#{name}" for name in wanted} < set(pages.links)
    assert {"#layer-conv1", "#layer-conv2"} < set(pages.links)


def test_a_page_says_the_figures_of_its_filter(material: Material, pages: _Pages) -> None:
    """Those of the table, with the patches' activation, image, label and prediction."""
    for row in material.tables["filters"].itertuples():
        text = pages.text(filter_pages.anchor(row.layer, row.filter))
        assert f"positions active {100 * row.fraction_active:.1f} %" in text
        assert f"largest activation {row.max_activation:.3f}" in text
        assert f"cosine filter {row.nearest_filter} , {row.nearest_cosine:.3f}" in text
    for row in material.tables["patches"].itertuples():
        text = pages.text(filter_pages.anchor(row.layer, row.filter))
        read = f" read as {row.prediction_name}" if row.label != row.prediction else ""
        assert f"{row.activation:.3f} #{row.image_id} {row.label_name}{read}" in text


def test_ties_of_the_last_patch_are_counted(material: Material, tmp_path: Path) -> None:
    """One position, or more."""
    table = material.tables["patches"]
    n_tied = table["filter"].map({0: 0, 1: 1}).fillna(1234).astype(int)
    tied = replace(material, tables={**material.tables, "patches": table.assign(n_tied=n_tied)})
    _, pages = _written(tied, tmp_path)
    words = [pages.text(filter_pages.anchor("conv2", f)) for f in range(3)]
    assert "further position" not in words[0]
    assert "1 further position has the activation of rank 12" in words[1]
    assert "1,234 further positions have the activation of rank 12" in words[2]


def test_a_filter_without_patches_and_without_figures_has_a_page(
    material: Material, tmp_path: Path
) -> None:
    """A dead one, in a table that says null where nothing is known."""
    filters, patches = (material.tables[name].copy() for name in ("filters", "patches"))
    is_it = (filters["layer"] == "conv1") & (filters["filter"] == 1)
    unknown = ["selectivity", "preferred_label", "sparsity", "smoothness", "nearest_filter"]
    unknown += ["nearest_cosine", "correlated_filter", "correlation"]
    filters.loc[is_it, unknown] = None
    filters.loc[is_it, ["dead", "fraction_active", "max_activation"]] = True, 0, 0
    filters["class_means"] = [
        np.full(10, np.nan) if it else means
        for it, means in zip(is_it, filters["class_means"], strict=True)
    ]
    patches = patches[(patches["layer"] != "conv1") | (patches["filter"] != 1)]
    tables = {**material.tables, "filters": filters, "patches": patches}
    _, pages = _written(replace(material, tables=tables), tmp_path)
    text = pages.text("filter-conv1-1")
    assert text.startswith("previous all filters of conv1 next Filter 1 of conv1 dead")
    assert "No patches: it never fires" in text
    assert not re.search(r"\b(nan|NaN|None|inf)\b", text)
    assert list(pages.pictures["filter-conv1-1"]) == ["kernel of filter 1"]


def test_hostile_class_names_are_text_on_the_pages(
    digits: Dataset, assemble: Callable[..., Material], tmp_path: Path
) -> None:
    """Whatever they would be elsewhere: no element, no handler, no address comes of them."""
    material = assemble(Dataset("folder", hostile.CLASSES, digits.splits, {}))
    text, pages = _written(material, tmp_path)
    assert not pages.tags & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert not re.search(r"<[^>]*\son\w+=", text)
    assert not re.search(r"(src|href)=\"(?!#|data:image/png;base64,)", text)
    assert not re.search(r"url\(|@import|://", text)
    found = " ".join(word for words in pages.words.values() for word in words)
    for name in hostile.CLASSES:
        assert " ".join(name.split()) in found


def _coloured(dataset: Dataset) -> Dataset:
    splits = {
        name: Split(
            (split.images * np.array([1, 0.6, 0.2])).astype(np.uint8), split.labels, split.ids
        )
        for name, split in dataset.splits.items()
    }
    return replace(dataset, splits=splits)


def test_a_report_on_64_filters_of_colour_images_is_drawn(
    digits: Dataset, assemble: Callable[..., Material], tmp_path: Path
) -> None:
    """Tiles in colour, a page for each; the UI has the first 25 rows and says so."""
    material = assemble(_coloured(digits), conv2_filters=64)
    text, pages = _written(material, tmp_path)
    assert len(pages.pictures) == 6 + 64
    crops = _crops(material)
    assert len(crops) > 100
    for (layer, f, rank), crop in crops.items():
        shown = pages.pictures[filter_pages.anchor(layer, f)][f"patch {rank}"]
        np.testing.assert_array_equal(_pixels(shown), crop)
    assert len(text) < 8e6
    whole = Image.open(BytesIO((tmp_path / "patches-conv2.png").read_bytes()))
    uri = re.findall(
        r"!\[patches\\-conv2\]\(\S+?,(\S+)\)", (tmp_path / html.PICTURES_NAME).read_text()
    )
    small = Image.open(BytesIO(base64.b64decode(uri[0])))
    assert small.height / 600 < 0.5 * whole.height / 1040
    first = layers.patches(body.layers_of(material)[1], 25)
    assert any(t.get_text().startswith("the first 25 of 64 filters") for t in first.axes[0].texts)


def test_a_layer_of_very_many_filters_has_pages_for_the_first(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are no links, and the page says so."""
    monkeypatch.setattr(filter_pages, "MOST_PAGES", 4)
    text, pages = _written(material, tmp_path)
    assert len(pages.pictures) == 8
    assert {link.removeprefix("#") for link in pages.links} <= set(pages.names)
    assert text.count("Only the first 4 have one here.") == 2
