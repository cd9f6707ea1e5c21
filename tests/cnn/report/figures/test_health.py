"""The figure of filter health: a row for each filter, without the values that are unknown."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from cnn.report.figures import health, theme
from cnn.report.filter_status import Row
from cnn.report.pages import body
from cnn.report.pages.body import Material
from tests.cnn.report.helpers import drawn, lines, texts

UNKNOWN = ("selectivity", "preferred_label", "sparsity", "smoothness", "nearest_filter")
UNKNOWN += ("nearest_cosine", "correlated_filter", "correlation", "population_sparsity")
DEAD: Row = {"dead": True, "fraction_active": 0.0, "max_activation": 0.0, **dict.fromkeys(UNKNOWN)}
LONG = "Übergröße – sehr lange Klasse mit_vielen_Wörtern im Namen"


def _rows(material: Material, n_filters: int) -> list[dict[str, Any]]:
    first, *_ = (dict(row) for row in body.layers_of(material)[0].rows if not row["dead"])
    quiet = {"selectivity": 0.1, "nearest_cosine": 0.2, "correlation": 0.3}
    return [{**first, **quiet, "filter": f} for f in range(n_filters)]


def _bars(figure: Figure) -> list[LineCollection]:
    """Return each column's pale bars and then its bars."""
    found: list[LineCollection] = figure.findobj(LineCollection)
    return [bars for bars in found if bars.get_linewidth()[0] > 5]


def _draw(rows: Sequence[Row], names: Sequence[str]) -> Figure:
    """Return the figure, in which no text covers another or a bar."""
    figure = health.draw(rows, "conv1", names)
    height = len(drawn(figure))
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for i, (text, box) in enumerate(boxes):
        covered = [other for other, other_box in boxes[:i] if box.overlaps(other_box)]
        assert covered == [], text
    for (left, y), (right, _) in (line for part in _bars(figure) for line in part.get_segments()):
        for text, box in boxes:
            is_beside = box.x1 <= left or box.x0 >= right
            assert is_beside or not box.y0 < height - y < box.y1, text
    return figure


@pytest.mark.parametrize("n_filters", [1, 25, 64, 500])
def test_any_number_of_filters_and_long_names_fit(material: Material, n_filters: int) -> None:
    """Each of the first 128 filters has its number."""
    shown = lines(_draw(_rows(material, n_filters), [LONG] * 10))
    assert {str(f) for f in range(min(n_filters, 128))} <= set(shown)
    assert any("; the first 128 shown" in line for line in shown) == (n_filters == 500)


def test_filters_with_a_status_come_first(material: Material) -> None:
    """The dead, duplicates and specialists are named, in their colours, and counted."""
    rows = _rows(material, 6)
    rows[4].update(DEAD)
    rows[3].update(nearest_cosine=0.99, nearest_filter=1)
    rows[5].update(selectivity=0.8, preferred_label=7)
    figure = _draw(rows, [f"class {i}" for i in range(10)])
    found = {text.get_text(): text for text in texts(figure)}
    words = ["dead", "duplicate of 1", "specialist"]
    heights = [found[word].get_position()[1] for word in (*words, "0")]
    assert heights == sorted(set(heights))
    assert [found[word].get_color() for word in words] == [theme.RED, theme.ORANGE, theme.BLUE]
    assert found["class 7"].get_color() == theme.BLUE
    assert any("1 dead, 1 duplicate, 1 specialist" in text for text in found)
    assert any("0.95" in text and "0.5" in text for text in found)


def test_bars_are_as_long_as_the_values(material: Material) -> None:
    """The share of active positions, from nothing to all of the pale bar below it."""
    rows = _rows(material, 3)
    for row, share in zip(rows, (0.0, 0.25, 1.0), strict=True):
        row["fraction_active"] = share
    pale, bars = _bars(_draw(rows, [str(i) for i in range(10)]))[:2]
    lengths = [[np.ptp(line[:, 0]) for line in part.get_segments()] for part in (pale, bars)]
    np.testing.assert_allclose(np.divide(lengths[1], lengths[0]), (0, 0.25, 1))


def test_a_layer_of_dead_filters_is_drawn(material: Material) -> None:
    """Nothing else is known of them, and nothing else is shown."""
    shown = lines(_draw([{**row, **DEAD} for row in _rows(material, 25)], [LONG] * 10))
    assert shown.count("dead") == 25
    assert not any("None" in line or "nan" in line for line in shown)
