"""The images that two models classify differently, as a figure."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from cnn.compare import summary
from cnn.compare.summary import Outcome
from cnn.data.dataset import Split
from cnn.report.figures import contact_sheet, theme
from cnn.report.figures.contact_sheet import Sheet, Tile
from cnn.report.filter_status import Row

N_SHOWN, _N_COLUMNS = 24, 6
_COLOURS: dict[Outcome, str] = {
    "wrong now": theme.RED,
    "right now": theme.GREEN,
    "still wrong": theme.ORANGE,
}  # in the order shown


def draw(rows: Sequence[Row], split: Split) -> Figure:
    """Return a figure of the images whose prediction changed, newly wrong ones first.

    rows: of the table `changed_predictions`, for this split.
    """
    order = list(_COLOURS)
    shown = sorted(rows, key=lambda row: order.index(summary.outcome(row)))[:N_SHOWN]
    position: dict[Any, int] = {int(image_id): i for i, image_id in enumerate(split.ids)}
    tiles = [
        _tile(row, contact_sheet.rgb(split.images[position[row["image_id"]]])) for row in shown
    ]
    part = f", the first {len(shown)} shown" if len(shown) < len(rows) else ""
    note = (
        f"{len(rows):,} of {len(split):,} images{part}; below each: label, prediction before "
        "\N{RIGHTWARDS ARROW} after, outcome, image id"
        if rows
        else f"none: all {len(split):,} images keep their prediction"
    )
    grid = contact_sheet.grid(tiles, _N_COLUMNS) or [[]]
    grid[0] += [None] * (_N_COLUMNS - len(grid[0]))  # else a few images would be drawn larger
    return Sheet("Predictions that changed", note, grid).draw()


def _tile(row: Row, image: Any) -> Tile:
    label, before, after = (
        _named(row[f"{name}_name"], row[name])
        for name in ("label", "prediction_before", "prediction_after")
    )
    outcome = summary.outcome(row)
    lines = [
        f"is {label}",
        f"{before} \N{RIGHTWARDS ARROW} {after}",
        outcome,
        f"#{row['image_id']}",
    ]
    return Tile(image, lines, _COLOURS[outcome])


def _named(name: str, number: int | None) -> str:
    """Return a class's name as figures write it; a class that the data lack has no number."""
    if number is None:
        return name if theme.can_draw(name) else "another class"
    return theme.class_label(name, number)
