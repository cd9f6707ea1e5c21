"""The health of a layer's filters at a glance: a row of bars for each, grouped by status."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnn.formatting import number
from cnn.report import filter_status
from cnn.report.figures import theme
from cnn.report.filter_status import Row

MOST_ROWS = 128  # filters with a status come first
_MARGIN, _HEAD, _ROW, _BAR = 22, 178, 21, 76  # pixels
_COLOURS = {"dead": theme.RED, "duplicate": theme.ORANGE, "specialist": theme.BLUE, "": theme.FAINT}
_NEUTRAL = "#9aa3b2"
_THICKNESS = 8.0  # points
# Pixels: right end of the number; left end of the status; left end and width of the class.
_NUMBER, _STATUS, _CLASS = 52, 64, (480, 132)


@dataclass(frozen=True)
class _Column:
    """A column of bars.

    left: where it starts, in pixels. name: the column of the filters table it shows. largest:
    the value of a full bar; end: the same as text. threshold: the value from which a filter gets
    a status. named: the column with the number of another filter, written beside the bar.
    """

    left: int
    heading: str
    name: str
    largest: float
    end: str
    threshold: float | None = None
    named: str = ""


def draw(rows: Sequence[Row], layer: str, class_names: Sequence[str]) -> Figure:
    """Return the figure of a layer's rows of the filters table; null means unknown."""
    shown = filter_status.ordered(rows)[:MOST_ROWS]
    height = _HEAD + _ROW * len(shown) + _MARGIN // 2
    figure = theme.figure(height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, theme.WIDTH)
    axes.set_ylim(height, 0)
    axes.axis("off")
    _entitle(axes, rows, len(shown), layer)
    for i, row in enumerate(shown):
        _name(axes, _middle(i), row, class_names)
    for column in _columns(rows):
        _draw_column(axes, column, shown)
    kinds = [filter_status.of(row).kind for row in shown]
    ends = [i for i in range(1, len(kinds)) if kinds[i] != kinds[i - 1]]
    axes.hlines([_HEAD + _ROW * i for i in ends], _MARGIN, theme.WIDTH - _MARGIN, theme.GRID)
    return figure


def _columns(rows: Sequence[Row]) -> list[_Column]:
    largest = max((row["max_activation"] for row in rows), default=0.0) or 1.0
    duplicate, specialist = filter_status.DUPLICATE, filter_status.SPECIALIST
    nearest, correlated = "nearest_filter", "correlated_filter"
    return [
        _Column(208, "positions\nactive", "fraction_active", 1.0, "100 %"),
        _Column(302, "largest\nactivation", "max_activation", largest, f"{largest:.3g}"),
        _Column(396, "selectivity,\nclass", "selectivity", 1.0, "1", specialist),
        _Column(622, "lifetime\nsparsity", "sparsity", 1.0, "1"),
        _Column(736, "nearest by\ncosine", "nearest_cosine", 1.0, "1", duplicate, nearest),
        _Column(852, "nearest by\ncorrelation", "correlation", 1.0, "1", duplicate, correlated),
        _Column(942, "smooth-\nness", "smoothness", 1.0, "1"),
    ]


def _entitle(axes: Axes, rows: Sequence[Row], n_shown: int, layer: str) -> None:
    part = f"; the first {n_shown} shown" if n_shown < len(rows) else ""
    title = f"Health of {layer}: {len(rows)} filters, {filter_status.counted(rows)}{part}"
    sparsity = rows[0]["population_sparsity"] if rows else None
    note = (
        f"{filter_status.rule()}\npopulation sparsity {number(sparsity, '.2f')}; bars start at 0, "
        "dotted lines mark the thresholds"
    )
    axes.text(_MARGIN, 16, title, fontsize=theme.TITLE, color=theme.INK, va="top")
    axes.text(_MARGIN, 42, note, fontsize=theme.SMALL, color=theme.FAINT, va="top")


def _name(axes: Axes, y: float, row: Row, class_names: Sequence[str]) -> None:
    """Write a filter's number, its status, and the class that it prefers."""
    status = filter_status.of(row)
    colour = _COLOURS[status.kind]
    _write(axes, _NUMBER, y, str(row["filter"]), theme.INK, ha="right")
    words = status.kind if status.kind == "specialist" else status.words(class_names)
    _write(axes, _STATUS, y, words, colour)
    if row["preferred_label"] is not None:
        label = int(row["preferred_label"])
        name = theme.fitted(theme.class_label(class_names[label], label), _CLASS[1], theme.SMALL)
        _write(axes, _CLASS[0], y, name, colour if status.kind == "specialist" else theme.FAINT)


def _draw_column(axes: Axes, column: _Column, rows: Sequence[Row]) -> None:
    """Draw each filter's bar on a pale one of full length; nothing where the value is unknown."""
    heading = f"{column.heading}\n0 to {column.end}"
    left, right = column.left, column.left + _BAR
    _write(axes, left, _HEAD - 6, heading, theme.FAINT, va="bottom")
    known = [(i, row) for i, row in enumerate(rows) if row[column.name] is not None]
    places = [_middle(i) for i, _ in known]
    values = [float(row[column.name]) for _, row in known]
    shares = [min(max(value / column.largest, 0), 1) for value in values]
    axes.hlines(places, left, right, theme.GRID, linewidth=_THICKNESS)
    colours = [_colour(column, value) for value in values]
    axes.hlines(places, left, [left + _BAR * s for s in shares], colours, linewidth=_THICKNESS)
    if column.threshold is not None and places:
        x = left + _BAR * column.threshold / column.largest
        axes.vlines(x, _HEAD, _HEAD + _ROW * len(rows), theme.FAINT, ":", linewidth=1)
    for place, (_, row) in zip(places, known, strict=True):
        if column.named:
            _write(axes, left - 6, place, str(int(row[column.named])), theme.FAINT, ha="right")


def _colour(column: _Column, value: float) -> str:
    """Return a bar's colour: that of the status whose threshold it reaches, else grey."""
    if column.threshold is None or value < column.threshold:
        return _NEUTRAL
    return _COLOURS["duplicate" if column.named else "specialist"]


def _write(
    axes: Axes, x: float, y: float, text: str, colour: str, ha: str = "left", va: str = "center"
) -> None:
    axes.text(x, y, text, fontsize=theme.SMALL, color=colour, ha=ha, va=va, parse_math=False)


def _middle(i: int) -> float:
    return _HEAD + _ROW * (i + 0.5)
