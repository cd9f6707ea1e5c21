"""The pages of single filters: every tile is the crop the table names, every link has a target."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnn.data.dataset import Dataset
from cnn.report.pages import filter_pages, html
from cnn.report.pages.body import Material
from tests.cnn.report.helpers import ParsedPage, crops, decoded, pixels_of, tinted, written
from tests.services import hostile


def _assert_tiles_are_crops(page: ParsedPage, material: Material) -> None:
    """Assert that every patch of the table, and no other, is shown with its pixels."""
    expected = crops(material)
    shown = {
        (layer, f, int(alt.split()[1])): pixels_of(png)
        for layer, kernels in material.kernels.items()
        for f in range(len(kernels))
        for alt, png in page.images[filter_pages.anchor(layer, f)].items()
        if alt.startswith("patch")
    }
    assert shown.keys() == expected.keys()
    for place, crop in expected.items():
        np.testing.assert_array_equal(shown[place], crop, err_msg=str(place))


def test_every_tile_is_the_crop_named_by_the_table(material: Material, page: ParsedPage) -> None:
    """Cut from the image of the data set by the table's box."""
    _assert_tiles_are_crops(page, material)


def test_each_patch_has_its_projection(material: Material, page: ParsedPage) -> None:
    """On its own symmetric scale: red above 0, blue below, the strongest value at an end."""
    for row in material.tables["patches"].itertuples():
        png = page.images[filter_pages.anchor(row.layer, row.filter)][f"projections {row.rank}"]
        shown = pixels_of(png).astype(int)
        values = material.views["projections"][row.layer][row.filter, row.rank - 1, ..., 0]
        strong = 0.2 * np.abs(values).max()
        redness = shown[..., 0] - shown[..., 2]
        assert (redness[values > strong] > 0).all()
        assert (redness[values < -strong] < 0).all()
        strongest = np.unravel_index(np.abs(values).argmax(), values.shape)
        end = [103, 0, 31] if values[strongest] > 0 else [5, 48, 97]
        np.testing.assert_array_equal(shown[strongest], end)


def test_every_link_has_a_target_and_every_filter_a_page(
    material: Material, page: ParsedPage
) -> None:
    """Ids are unique; links lead from a layer to its filters, between neighbours, and back."""
    assert len(set(page.ids)) == len(page.ids)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    expected = [
        filter_pages.anchor(layer, f)
        for layer, kernels in material.kernels.items()
        for f in range(len(kernels))
    ]
    assert list(page.images) == expected
    assert {f"#{name}" for name in expected} < set(page.links)
    assert {"#layer-conv1", "#layer-conv2"} < set(page.links)


def test_a_page_has_the_statistics_of_its_filter(material: Material, page: ParsedPage) -> None:
    """Those of the table, and each patch's activation, image, label and prediction."""
    for row in material.tables["filters"].itertuples():
        text = page.text(filter_pages.anchor(row.layer, row.filter))
        assert f"positions active {100 * row.fraction_active:.1f} %" in text
        assert f"largest activation {row.max_activation:.3f}" in text
        assert f"cosine filter {row.nearest_filter} , {row.nearest_cosine:.3f}" in text
    for row in material.tables["patches"].itertuples():
        text = page.text(filter_pages.anchor(row.layer, row.filter))
        wrong = f" predicted as {row.prediction_name}" if row.label != row.prediction else ""
        assert f"{row.activation:.3f} #{row.image_id} {row.label_name}{wrong}" in text


def test_ties_with_the_last_patch_are_counted(material: Material, tmp_path: Path) -> None:
    """None, one position, or more."""
    table = material.tables["patches"]
    n_tied = table["filter"].map({0: 0, 1: 1}).fillna(1234).astype(int)
    tables = {**material.tables, "patches": table.assign(n_tied=n_tied)}
    _, page = written(replace(material, tables=tables), tmp_path)
    words = [page.text(filter_pages.anchor("conv2", f)) for f in range(3)]
    assert "with rank" not in words[0]
    assert "1 more position ties with rank 12." in words[1]
    assert "1,234 more positions tie with rank 12." in words[2]


def test_hostile_names_are_text_on_all_pages(
    digits: Dataset, assemble: Callable[..., Material], tmp_path: Path
) -> None:
    """They do not become an element, a handler or an address; the body has no script or link."""
    dataset = Dataset("<b>folder & Co", hostile.CLASSES, digits.splits, {})
    text, page = written(assemble(dataset), tmp_path)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "form", "base", "b"}
    assert not re.search(r"<[^>]*\son\w+=", text)
    assert not re.search(r"(src|href)=\"(?!#|data:image/png;base64,)", text)
    assert not re.search(r"url\(|@import|://", text)
    assert "<b>folder & Co: 28 x 28 x 1 pixels, 10 classes" in page.text()
    for name in hostile.CLASSES:
        assert " ".join(name.split()) in page.text()


def test_a_report_on_64_filters_of_colour_images_is_written(
    digits: Dataset, assemble: Callable[..., Material], tmp_path: Path
) -> None:
    """Tiles in colour, a page for each filter; the UI gets the first 25 rows."""
    material = assemble(tinted(digits), conv2_filters=64)
    text, page = written(material, tmp_path)
    assert len(page.images) == 6 + 64
    assert len(crops(material)) > 100
    _assert_tiles_are_crops(page, material)
    assert len(text) < 8e6
    whole = pixels_of((tmp_path / "patches-conv2.png").read_bytes())
    in_ui = (tmp_path / html.PICTURES_NAME).read_text()
    uri = re.findall(r"!\[patches\\-conv2\]\((\S+)\)", in_ui)[0]
    assert len(pixels_of(decoded(uri))) / 600 < 0.5 * len(whole) / 1040


def test_a_layer_of_very_many_filters_has_pages_for_the_first(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are not linked, and the report says so."""
    monkeypatch.setattr(filter_pages, "MOST_PAGES", 4)
    text, page = written(material, tmp_path)
    assert len(page.images) == 8
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert text.count("Each of the first 4 has a page") == 2
