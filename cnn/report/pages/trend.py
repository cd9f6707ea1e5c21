"""The last runs of a deployment, as a figure and a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cnn import formatting
from cnn.report.figures import theme
from cnn.report.pages import markdown, thumbnails

N_RUNS = 20
_HEIGHT = 420  # pixels
_OUTCOMES = {"promoted": theme.GREEN, "kept": theme.FAINT, "rejected": theme.RED}
Row = Mapping[str, Any]


def last(index: Sequence[Row], deployment: str, data: str) -> list[Row]:
    """Return the rows of the last 20 runs of a deployment, oldest first.

    index: rows of the table of runs. Runs from the command line have no deployment and are
    grouped by data set.
    """
    chosen = [
        row
        for row in index
        if row["deployment"] == deployment and (deployment or row["data"] == data)
    ]
    return chosen[-N_RUNS:]


def page(rows: Sequence[Row], what: str) -> str:
    """Return the figure and the table of some runs in markdown.

    what: the deployment or data set, for the heading.
    """
    shown = markdown.image("accuracy of the last runs", thumbnails.small(theme.png(draw(rows))))
    n_runs = "last run" if len(rows) == 1 else f"last {len(rows)} runs"
    heading = f"# The {n_runs} of {markdown.escaped(what)}"
    return "\n\n".join([heading, shown, markdown.table(table(rows))])


def table(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return a row of text for each run, newest first."""
    return [
        {
            "run": row["run"],
            "test accuracy": formatting.percent(row["test_accuracy"]),
            "validation accuracy": formatting.percent(row["validation_accuracy"]),
            "gate": row["gate"] or row["status"],
            "steps run": str(row["n_steps_run"]),
            "time": formatting.seconds(row["seconds"]),
        }
        for row in reversed(rows)
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """Return a figure of the accuracy of each run, marked with the gate's decision."""
    figure = theme.figure(_HEIGHT)
    axes = figure.subplots()
    theme.style(axes, "Accuracy of the last runs", "", "")
    for split, style in (("test", "-"), ("validation", ":")):
        values = [_or_nan(row[f"{split}_accuracy"]) for row in rows]
        axes.plot(values, style, color=theme.SPLIT_COLOURS[split], label=split, marker=".")
    _limit(axes, [row[f"{split}_accuracy"] for row in rows for split in ("test", "validation")])
    for outcome, colour in _OUTCOMES.items():
        at = [i for i, row in enumerate(rows) if row["gate"] == outcome]
        tested = [_or_nan(rows[i]["test_accuracy"]) for i in at]
        axes.plot(at, tested, "o", color=colour, label=outcome, markersize=9)
    failed = [i for i, row in enumerate(rows) if row["status"] == "failed"]
    for n, i in enumerate(failed):
        axes.axvline(i, color=theme.RED, linestyle="--", label="" if n else "failed")
    axes.set_xticks(range(len(rows)), [f"{row['created']:%d %b\n%H:%M}" for row in rows])
    axes.set_xlim(-0.5, max(len(rows), 2) - 0.5)
    _thin(axes)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=theme.TEXT, frameon=False)
    figure.tight_layout()
    return figure


def _limit(axes: Axes, values: Sequence[float | None]) -> None:
    """Set the limits of the y axis: half a point or more around the values, little above 100 %."""
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    room = max(0.1 * (high - low), 0.005)
    axes.set_ylim(low - room, min(high + room, 1 + room / 2))


def _thin(axes: Axes) -> None:
    """Show the times of at most seven runs, including the newest."""
    labels = axes.get_xticklabels()
    step = -(-len(labels) // 7)
    for i, label in enumerate(reversed(labels)):
        label.set_visible(i % step == 0)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
