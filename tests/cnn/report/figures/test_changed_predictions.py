"""The figure of the images whose prediction changed."""

from typing import Any

import numpy as np
import pytest

from cnn.data.dataset import Split
from cnn.report.figures import changed_predictions
from tests.cnn.report.conftest import DrawnTiles
from tests.cnn.report.helpers import drawn, lines

SPLIT = Split(
    np.ones((40, 6, 6, 1), np.uint8) * np.arange(40, dtype=np.uint8).reshape(-1, 1, 1, 1),
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


def test_newly_wrong_images_come_first(drawn_tiles: DrawnTiles) -> None:
    """Then the newly right ones, then the rest; each with its own image."""
    rows = [row(3, "b", "c"), row(5, "b", "a"), row(7, "a", "b"), row(9, "a", "c")]
    tiles = drawn_tiles(lambda: changed_predictions.draw(rows, SPLIT))
    assert [tuple(tile.lines) for tile in tiles] == [
        ("is a", "a → b", "wrong now", "#107"),
        ("is a", "a → c", "wrong now", "#109"),
        ("is a", "b → a", "right now", "#105"),
        ("is a", "b → c", "still wrong", "#103"),
    ]
    assert [int(tile.image.max()) for tile in tiles] == [7, 9, 5, 3]
    assert len({tile.colour for tile in tiles}) == 3


@pytest.mark.parametrize(("name", "shown"), [("cat", "cat"), ("\U0001f408", "another class")])
def test_a_class_that_the_data_lack_is_named(
    drawn_tiles: DrawnTiles, name: str, shown: str
) -> None:
    """It has no number to stand in for letters that the font lacks."""
    (tile,) = drawn_tiles(lambda: changed_predictions.draw([row(0, "b", name, None)], SPLIT))
    assert tile.lines[1] == f"b → {shown}"


@pytest.mark.parametrize(
    ("n", "note"), [(0, "none: all 40"), (30, "30 of 40 images, the first 24 shown")]
)
def test_the_note_counts_the_images(n: int, note: str) -> None:
    """None, or more than the figure shows."""
    figure = changed_predictions.draw([row(i, "a", "b") for i in range(n)], SPLIT)
    assert any(note in line for line in lines(figure))
    drawn(figure)


def test_few_images_are_not_drawn_larger_than_many() -> None:
    """One image does not fill the page."""
    one, six = (
        changed_predictions.draw([row(i, "a", "b") for i in range(n)], SPLIT) for n in (1, 6)
    )
    assert one.get_figheight() == six.get_figheight()
