"""The images whose prediction changed, as a picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from cnn.data.dataset import Split
from cnn.report.figures import changed_predictions, contact_sheet, theme
from cnn.report.figures.contact_sheet import Tile

SPLIT = Split(
    np.full((40, 6, 6, 1), 1, np.uint8) * np.arange(40, dtype=np.uint8).reshape(-1, 1, 1, 1),
    np.zeros(40, np.int64),
    np.arange(100, 140),
)


def row(i: int, before: str, after: str, after_number: int | None = 1) -> dict[str, Any]:
    """Return the row of an image whose label is a."""
    return {
        "image_id": 100 + i,
        "label": 0,
        "prediction_before": 1,
        "prediction_after": after_number,
        "label_name": "a",
        "prediction_before_name": before,
        "prediction_after_name": after,
        "right_before": before == "a",
        "right_after": after == "a",
    }


def drawn_tiles(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]) -> list[Tile]:
    """Return the tiles of the picture in reading order."""
    kept: list[Any] = []

    def keep(sheet: contact_sheet.Sheet) -> None:
        kept.append(sheet)

    monkeypatch.setattr(contact_sheet.Sheet, "draw", keep)
    changed_predictions.draw(rows, SPLIT)
    return [tile for line in kept[0].rows for tile in line if tile is not None]


def test_what_became_wrong_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then what became right, then the rest; each with its own image."""
    rows = [row(3, "b", "c"), row(5, "b", "a"), row(7, "a", "b"), row(9, "a", "c")]
    tiles = drawn_tiles(monkeypatch, rows)
    assert [tuple(tile.lines) for tile in tiles] == [
        ("is a", "a → b", "wrong now", "#107"),
        ("is a", "a → c", "wrong now", "#109"),
        ("is a", "b → a", "right now", "#105"),
        ("is a", "b → c", "wrong in another way", "#103"),
    ]
    assert [int(tile.picture.max()) for tile in tiles] == [7, 9, 5, 3]
    assert len({tile.colour for tile in tiles}) == 3


def test_a_class_that_the_data_do_not_have_and_the_font_cannot_write_has_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no number to be called by."""
    (known,) = drawn_tiles(monkeypatch, [row(0, "b", "cat", None)])
    assert known.lines[1] == "b → cat"
    (unknown,) = drawn_tiles(monkeypatch, [row(0, "b", "\U0001f408", None)])
    assert unknown.lines[1] == "b → another class"


@pytest.mark.parametrize(
    ("n", "told"), [(0, "none: all 40"), (30, "30 of 40 images, the first 24 of")]
)
def test_the_picture_says_how_many_there_are(tmp_path: Path, n: int, told: str) -> None:
    """None, or more than are shown; in the common width."""
    made = changed_predictions.draw([row(i, "a", "b") for i in range(n)], SPLIT)
    shown: list[Text] = made.findobj(Text)
    assert any(told in item.get_text() for item in shown)
    theme.save(made, tmp_path / "changed.png")
    with Image.open(tmp_path / "changed.png") as picture:
        assert picture.width == theme.WIDTH


def test_few_images_are_not_drawn_larger_than_many() -> None:
    """One image does not fill the page."""
    one, six = (
        changed_predictions.draw([row(i, "a", "b") for i in range(n)], SPLIT) for n in (1, 6)
    )
    assert one.get_figheight() == six.get_figheight()
