"""What the command prints: tables for people, JSON for machines."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnn.report import html
from cnn.store import runs
from cnn.store.runs import RunRecord

console = Console()


def tell(message: str) -> None:
    """Say something while work goes on, where it does not mix with results."""
    Console(stderr=True).print(Text(message))


def as_json(value: Any) -> None:
    """Print a value as JSON; NaN and infinity are refused by then."""
    print(json.dumps(value, indent=2, allow_nan=False, default=str))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table; long cells are folded, never cut."""
    shown = Table(title=title or None, title_justify="left", title_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    console.print(shown)


def run(record: RunRecord, folder: Path) -> None:
    """Print what a run was, how good its model is, what each step took, and where the report is."""
    accuracy = html.percent(record.headline.get("test_accuracy"))
    low, high = (
        html.percent(record.headline.get(f"test_accuracy_ci_{end}")) for end in ("low", "high")
    )
    title = f"{record.run}\n{record.data}, recipe {record.recipe}, seed {record.seed}"
    rows = [(step.step, step.state, html.seconds(step.seconds), step.why) for step in record.steps]
    table(("step", "outcome", "time", "why"), rows, title)
    if record.note:
        console.print(Text(f"Note: {record.note}", style="bold yellow"))
    if record.error:
        console.print(Text(f"Failed: {record.error}", style="bold red"))
    console.print(Text(f"test accuracy  {accuracy} (95 % interval {low} to {high})", style="bold"))
    console.print(Text(f"time           {html.seconds(record.seconds)}"))
    if (folder / runs.REPORT_NAME).exists():
        console.print(Text(f"report         {folder / runs.REPORT_NAME}"), soft_wrap=True)


def all_runs(records: Sequence[RunRecord]) -> None:
    """Print one line a run, the newest last."""
    rows = [
        (
            record.run,
            record.status,
            record.data,
            html.percent(record.headline.get("test_accuracy")),
            html.seconds(record.seconds),
        )
        for record in records
    ]
    table(("run", "status", "data", "test accuracy", "time"), rows)
