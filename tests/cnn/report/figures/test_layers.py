"""Contact sheets of a layer: kernels, patches and views of each filter."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnn.explain.views import projections
from cnn.report.figures import contact_sheet, layers, theme
from cnn.report.figures.layers import ExplainedLayer
from cnn.report.pages import body
from cnn.report.pages.body import Material
from tests.cnn.report.helpers import crops, drawn, lines, texts

CAPTION = r"\d+\.\d\d   \d"  # activation and label of a patch


@pytest.fixture(params=["conv1", "conv2"])
def layer(material: Material, request: pytest.FixtureRequest) -> ExplainedLayer:
    """A layer of the model."""
    return next(one for one in body.layers_of(material) if one.name == request.param)


@pytest.fixture
def conv1(material: Material) -> ExplainedLayer:
    """The first layer, of six filters."""
    return body.layers_of(material)[0]


def test_filters_are_numbered_and_dead_ones_are_marked(conv1: ExplainedLayer) -> None:
    """A dead filter says so in red; the colour bar is symmetric and ends at the largest weight."""
    rows = [{**row, "dead": row["filter"] == 3} for row in conv1.rows]
    figure = layers.filters(replace(conv1, rows=rows))
    drawn(figure)
    colours = {text.get_text(): text.get_color() for text in texts(figure)}
    assert [line for line in colours if "dead" in line] == ["3 dead"]
    assert (colours["3 dead"], colours["4"]) == (theme.RED, theme.INK)
    assert {str(f) for f in range(6) if f != 3} < set(colours)
    bar = figure.axes[-1]
    assert bar.get_ylabel().startswith("weight")
    low, high = bar.get_ylim()
    assert -low == high == pytest.approx(np.abs(conv1.kernels).max())


def test_every_patch_has_its_activation_and_label(layer: ExplainedLayer) -> None:
    """Every mined patch is shown with both."""
    shown = lines(layers.patches(layer))
    expected = sorted(f"{row['activation']:.2f}   {row['label_name']}" for row in layer.patches)
    assert sorted(line for line in shown if re.fullmatch(CAPTION, line)) == expected


def test_filters_with_few_patches_or_none_leave_gaps(conv1: ExplainedLayer) -> None:
    """A filter without patches says "never fires"; the other rows stay in place."""
    n_silent = lines(layers.patches(conv1)).count("never")
    fewer = [row for row in conv1.patches if row["filter"] > 1]
    fewer += [row for row in conv1.patches if row["filter"] == 1 and row["rank"] <= 3]
    figure = layers.patches(replace(conv1, patches=fewer))
    drawn(figure)
    shown = lines(figure)
    assert shown.count("never") == n_silent + 1
    assert sum(bool(re.fullmatch(CAPTION, line)) for line in shown) == len(fewer)
    assert {str(f) for f in range(6)} < set(shown)
    figure = layers.patches(replace(conv1, patches=[]))
    drawn(figure)
    assert lines(figure).count("never") == 6


def test_a_figure_of_the_first_filters_says_so(conv1: ExplainedLayer) -> None:
    """In its title, for patches and views."""
    for figure in (layers.patches(conv1, 2), layers.view(conv1, projections.VIEW, 2)):
        assert any(line.endswith(" of conv1 (the first 2 of 6)") for line in lines(figure))


def test_every_tile_of_the_patches_is_the_crop_named_by_the_table(
    material: Material, layer: ExplainedLayer
) -> None:
    """In the row of its filter and the column of its rank; only enlarged."""
    pixels = drawn(layers.patches(layer))
    height, width = layer.pixels.shape[2:4]
    zoom = 60 // height
    gap = 10 * layer.of_image
    column = (1040 - 22 - 52 - 22 - gap) // (12 + layer.of_image)
    head, n_filters = 102, len(layer.kernels)
    for (name, f, rank), crop in crops(material).items():
        if name == layer.name:
            enlarged = crop.repeat(zoom, axis=0).repeat(zoom, axis=1)
            x = 22 + 52 + (rank - 1) * column + layer.of_image * (column + gap)
            x += (column - zoom * width) // 2
            found = pixels[:, x : x + zoom * width]
            row_top = head + f * (len(pixels) - head - 11) / n_filters
            tops = [y for y in range(len(found)) if _is_at(found, enlarged, y)]
            assert min(abs(y - row_top) for y in tops) < 40, (f, rank)


def _is_at(whole: NDArray[np.uint8], part: NDArray[Any], y: int) -> bool:
    starts = bool((whole[y : y + 1] == part[:1]).all())
    return starts and np.array_equal(whole[y : y + len(part)], part)


def test_a_view_has_nine_patches_and_nine_projections_of_each_filter(
    layer: ExplainedLayer,
) -> None:
    """Patches at the left, projections at the right, in rows of three."""
    height, width = layer.pixels.shape[2:4]
    right = 3 * (width + 1) - 1 + 3
    projected = layer.views["projections"]
    for f in range(len(layer.kernels)):
        rows = [row for row in layer.patches if row["filter"] == f][:9]
        tile = layers._view_tile(layer.pixels[f], projected[f], f, rows).image
        for i, row in enumerate(rows):
            y, x = i // 3 * (height + 1), i % 3 * (width + 1)
            crop = contact_sheet.rgb(layer.pixels[f, row["rank"] - 1])
            view = layers.view_image(projected[f, row["rank"] - 1])
            np.testing.assert_array_equal(tile[y : y + height, x : x + width], crop)
            x += right
            np.testing.assert_array_equal(tile[y : y + height, x : x + width], view)


def test_projections_are_labelled_as_not_an_explanation(conv1: ExplainedLayer) -> None:
    """In the figure itself, which may be shown without the page."""
    assert any("not explanation" in line for line in lines(layers.view(conv1, projections.VIEW)))
