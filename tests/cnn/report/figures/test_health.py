"""The figure of health: a row for each filter, what is not known is left out."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from cnn.report.figures import health, theme
from cnn.report.filter_status import Row
from cnn.report.pages import body
from cnn.report.pages.body import Material

UNKNOWN = ("selectivity", "preferred_label", "sparsity", "smoothness", "nearest_filter")
UNKNOWN += ("nearest_cosine", "correlated_filter", "correlation", "population_sparsity")
DEAD: Row = {"dead": True, "fraction_active": 0.0, "max_activation": 0.0, **dict.fromkeys(UNKNOWN)}
LONG = "Übergröße – sehr lange Klasse mit_vielen_Wörtern im Namen"


def _texts(made: Figure) -> list[str]:
    shown: list[Text] = made.findobj(Text)
    return [text.get_text() for text in shown]


def _rows(material: Material, n_filters: int) -> list[dict[str, Any]]:
    first, *_ = (dict(row) for row in body.layers_of(material)[0].rows if not row["dead"])
    quiet = {"selectivity": 0.1, "nearest_cosine": 0.2, "correlation": 0.3}
    return [{**first, **quiet, "filter": f} for f in range(n_filters)]


def _bars(made: Figure) -> list[LineCollection]:
    """Return each column's pale bars and then its bars."""
    found: list[LineCollection] = made.findobj(LineCollection)
    return [lines for lines in found if lines.get_linewidth()[0] > 5]


def _drawn(rows: Sequence[Row], folder: Path, names: Sequence[str]) -> Figure:
    """Return the figure; every text is inside of it, and none covers another."""
    made = health.draw(rows, "conv1", names)
    theme.save(made, folder / "health.png")
    assert Image.open(BytesIO((folder / "health.png").read_bytes())).width == 1040
    texts: list[Text] = [text for text in made.findobj(Text) if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    _, height = made.canvas.get_width_height()
    for text, box in zip(texts, boxes, strict=True):
        assert min(box.x0, box.y0) >= 0, text.get_text()
        assert (box.x1 <= 1040, box.y1 <= height) == (True, True), text.get_text()
    for i, box in enumerate(boxes):
        covered = [texts[j].get_text() for j in range(i) if box.overlaps(boxes[j])]
        assert covered == [], texts[i].get_text()
    bars = [line for part in _bars(made) for line in part.get_segments()]
    for (left, y), (right, _) in bars:
        for text, box in zip(texts, boxes, strict=True):
            is_beside = box.x1 <= left or box.x0 >= right
            assert is_beside or not box.y0 < height - y < box.y1, text.get_text()
    return made


@pytest.mark.parametrize("n_filters", [1, 25, 64, 500])
def test_any_number_of_filters_and_long_names_fit(
    material: Material, n_filters: int, tmp_path: Path
) -> None:
    """Each has its number, the first 128 where there are more."""
    made = _drawn(_rows(material, n_filters), tmp_path, [LONG] * 10)
    assert {str(f) for f in range(min(n_filters, 128))} <= set(_texts(made))
    assert any("; 128 are shown" in text for text in _texts(made)) == (n_filters == 500)


def test_verdicts_stand_first_with_their_words(material: Material, tmp_path: Path) -> None:
    """The dead, duplicates and specialists are named, in their colours, and counted."""
    rows = _rows(material, 6)
    rows[4].update(DEAD)
    rows[3].update(nearest_cosine=0.99, nearest_filter=1)
    rows[5].update(selectivity=0.8, preferred_label=7)
    made = _drawn(rows, tmp_path, [f"class {i}" for i in range(10)])
    texts: list[Text] = made.findobj(Text)
    found = {text.get_text(): text for text in texts}
    words = ["dead", "duplicate of 1", "specialist"]
    heights = [found[word].get_position()[1] for word in words]
    assert heights == sorted(heights)
    assert [found[word].get_color() for word in words] == [theme.RED, theme.ORANGE, theme.BLUE]
    assert found["class 7"].get_color() == theme.BLUE
    assert heights[2] < found["0"].get_position()[1]
    assert any("1 dead, 1 duplicate, 1 specialist" in text for text in found)
    assert any("0.95" in text and "0.5" in text for text in found)


def test_bars_are_as_long_as_the_figures(material: Material, tmp_path: Path) -> None:
    """The shares of positions, from nothing to all of the pale bar behind."""
    rows = _rows(material, 3)
    for row, share in zip(rows, (0.0, 0.25, 1.0), strict=True):
        row["fraction_active"] = share
    made = _drawn(rows, tmp_path, [str(i) for i in range(10)])
    pale, bars = _bars(made)[:2]
    lengths = [[np.ptp(line[:, 0]) for line in part.get_segments()] for part in (pale, bars)]
    np.testing.assert_allclose(np.divide(lengths[1], lengths[0]), (0, 0.25, 1))


def test_a_layer_of_dead_filters_is_drawn(material: Material, tmp_path: Path) -> None:
    """Nothing is known of any of them, and nothing is said but that."""
    rows = [{**row, **DEAD} for row in _rows(material, 25)]
    made = _drawn(rows, tmp_path, [LONG] * 10)
    assert _texts(made).count("dead") == 25
    assert not any("None" in text or "nan" in text for text in _texts(made))
