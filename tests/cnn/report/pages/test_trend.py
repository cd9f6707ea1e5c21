"""The last runs of a deployment, as a figure and a table."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cnn.report.pages import trend
from tests.cnn.report.helpers import drawn

START = datetime(2026, 11, 1, 1, 30, tzinfo=UTC)


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "run": f"run-{number}",
        "created": START + timedelta(days=number),
        "status": "completed",
        "data": "mnist",
        "test_accuracy": 0.98,
        "validation_accuracy": 0.97,
        "n_steps_run": 6,
        "seconds": 30.0,
        "deployment": "nightly",
        "gate": "promoted",
        **changes,
    }


def failed(number: int) -> dict[str, Any]:
    nothing = {"test_accuracy": None, "validation_accuracy": None, "gate": None}
    return row(number, status="failed", **nothing)


def test_the_last_20_runs_of_the_deployment_are_chosen() -> None:
    """Runs from the command line have no deployment and are grouped by their data."""
    index = [row(i, deployment="nightly" if i % 2 else "weekly") for i in range(60)]
    chosen = trend.last(index, "nightly", "digits")
    assert [item["run"] for item in chosen] == [f"run-{i}" for i in range(21, 60, 2)]
    index = [row(i, deployment="", data=("mnist", "digits")[i % 2]) for i in range(4)]
    assert [item["run"] for item in trend.last(index, "", "digits")] == ["run-1", "run-3"]


def test_the_table_has_one_row_per_run_newest_first() -> None:
    """A failed run says so."""
    shown = trend.table([row(0), failed(1)])
    assert [item["run"] for item in shown] == ["run-1", "run-0"]
    assert [item["gate"] for item in shown] == ["failed", "promoted"]
    assert [item["test accuracy"] for item in shown] == ["n/a", "98.00 %"]


@pytest.mark.parametrize(
    "rows",
    [
        [row(0)],
        [row(0, test_accuracy=1.0, validation_accuracy=1.0)] * 20,
        [failed(0), failed(1)],
        [failed(0), *(row(i, test_accuracy=0.9 + i / 400) for i in range(1, 20))],
    ],
)
def test_every_accuracy_is_inside_the_figure(rows: list[dict[str, Any]]) -> None:
    """Not on its edge, with little room above 100 %; points are marked, even a single one."""
    figure = trend.draw(rows)
    drawn(figure)
    (axes,) = figure.axes
    assert [line.get_marker() for line in axes.lines[:2]] == [".", "."]
    low, high = axes.get_ylim()
    known = [r[f"{s}_accuracy"] for r in rows for s in ("test", "validation")]
    assert all(low < value < high for value in known if value is not None)
    assert high - low >= 0.005
    assert high < 1.051


def test_the_page_has_a_figure_and_counts_the_runs() -> None:
    """A single run is "the last run"."""
    page = trend.page([row(0)], "a [x](y)")
    assert page.startswith("# The last run of a \\[x\\]\\(y\\)")
    assert page.count("](data:image/png;base64,") == 1
    assert trend.page([row(0), row(1)], "a").startswith("# The last 2 runs of a\n")
