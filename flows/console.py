"""Prints the command's output: tables for people, JSON for machines."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from cnn import formatting
from cnn.commands.gc import Item, Survey
from cnn.commands.verify import Findings
from cnn.compare import summary
from cnn.progress import Report
from cnn.runs import folders, records
from cnn.runs.records import RunRecord
from cnn.runs.searches import SearchRecord

console = Console()


def tell(message: str) -> None:
    """Print a message to stderr, where it does not mix with results."""
    Console(stderr=True).print(Text(message))


def as_json(value: Any) -> None:
    """Print a value as JSON; raises ValueError for NaN and infinity."""
    print(json.dumps(value, indent=2, allow_nan=False, default=str))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table; long cells are folded, except in the first column, which holds names."""
    shown = Table(title=title or None, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        shown.add_column(column, overflow="fold", no_wrap=i == 0)
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    console.print(shown)


def run(record: RunRecord, folder: Path) -> None:
    """Print a run: its settings, steps and their times, accuracy, gate decision and report."""
    accuracy = formatting.percent(record.headline.get("test_accuracy"))
    low, high = (
        formatting.percent(record.headline.get(f"test_accuracy_ci_{end}"))
        for end in ("low", "high")
    )
    title = f"{record.run}\n{record.data}, recipe {record.recipe}, seed {record.seed}"
    rows = [
        (step.step, step.state, formatting.seconds(step.seconds), step.why) for step in record.steps
    ]
    table(("step", "outcome", "time", "why"), rows, title)
    if folders.is_pinned(folder):
        console.print(Text("Pinned: gc keeps it and what it was made from", style="bold"))
    if record.note:
        console.print(Text(f"Note: {record.note}", style="bold yellow"))
    if record.error:
        console.print(Text(f"Failed: {record.error}", style="bold red"))
    console.print(Text(f"test accuracy  {accuracy} (95 % interval {low} to {high})", style="bold"))
    if record.gate:
        decision = f"{record.gate.outcome} on track {record.gate.track}: {record.gate.because}"
        console.print(Text(f"gate           {decision}"), soft_wrap=True)
    console.print(Text(f"time           {formatting.seconds(record.seconds)}"))
    if (folder / records.REPORT_NAME).exists():
        console.print(Text(f"report         {folder / records.REPORT_NAME}"), soft_wrap=True)


def found(record: SearchRecord, folder: Path) -> None:
    """Print how many patches a search found, and where its figures and table are."""
    console.print(Text(f"{record.n_patches:,} patches of {record.layer}", style="bold"))
    for label, path in [("figures", f"{folder}/*.png"), ("table", folder / "patches.parquet")]:
        console.print(Text(f"{label:<9} {path}"), soft_wrap=True)


def comparison(folder: Path, result: Mapping[str, Any]) -> None:
    """Print how metrics, filters and predictions of two runs differ, and where the files are."""
    if result["note"]:
        console.print(Text(f"Note: {result['note']}", style="bold yellow"))
    title = f"before: {result['before']}\nafter:  {result['after']}"
    table(("metric", "before", "after", "change"), map(_metric, result["metrics"]), title)
    rows = [
        (
            item["layer"],
            *(str(item[name]) for name in summary.STATUSES),
            f"{item['null_correlation']:.2f}",
        )
        for item in result["layers"]
    ]
    table(("filters of", *summary.STATUSES, "unrelated filters correlate up to"), rows)
    for layer, why in result["left_out"].items():
        console.print(Text(f"{layer} could not be compared: {why}"), soft_wrap=True)
    console.print(Text(summary.prediction_words(result)), soft_wrap=True)
    ids = ", ".join(f"#{image_id}" for image_id in result["first_changed"])
    if ids:
        console.print(Text(f"first of them: {ids}"), soft_wrap=True)
    console.print(Text(f"figures and tables  {folder}"), soft_wrap=True)


def _metric(row: Mapping[str, Any]) -> list[str]:
    """Return the row of a metric: both values and the change, of accuracy with its interval."""
    name = f"{row['split']} {row['metric'].replace('_', ' ')}"
    if row["metric"] != "accuracy":
        return [name, f"{row['before']:.4f}", f"{row['after']:.4f}", f"{row['change']:+.4f}"]
    change, low, high = (f"{100 * row[part]:+.2f}" for part in ("change", "ci_low", "ci_high"))
    points = f"{change} points ({low} to {high}), {row['n']:,} images"
    return [name, formatting.percent(row["before"]), formatting.percent(row["after"]), points]


def all_runs(found: Sequence[tuple[RunRecord, bool]]) -> None:
    """Print one line per run, the newest last, with the gate's decision or else the status."""
    rows = []
    for record, pinned in found:
        outcome = record.gate.outcome if record.gate else record.status
        accuracy = formatting.percent(record.headline.get("test_accuracy"))
        shown = f"{outcome}, pinned" if pinned else outcome
        rows.append((record.run, shown, accuracy, formatting.seconds(record.seconds)))
    table(("run", "outcome", "test accuracy", "time"), rows)


@contextmanager
def progress(name: str) -> Iterator[Report]:
    """Yield a callback that shows a progress bar on a terminal while the block runs."""
    terminal = Console(stderr=True)
    with Progress(console=terminal, disable=not terminal.is_terminal) as bars:
        task = bars.add_task(name, total=None)
        yield lambda now: bars.update(task, completed=now.done, total=now.total)


def verified(found: Findings) -> None:
    """Print a line for each broken file or folder, and how much was verified."""
    for item in found.broken:
        print(f"{item.path}: {item.what}")
    if found.broken:
        print("Run again to rebuild broken artifacts and the index; gc removes what is not needed.")
        print("Copies in a run's folder are not rebuilt: copy them from the artifact.")
    scope = (
        f"{_counted(found.n_artifacts, 'artifact')}, {_counted(found.n_runs, 'run')}, "
        f"{_counted(found.n_files, 'file')}, {found.n_bytes:,} bytes"
    )
    n_broken = _counted(len(found.broken), "broken item") if found.broken else "nothing is broken"
    print(f"{n_broken} in {scope}")


def collected(found: Survey, applied: bool, free_before: int, free_now: int) -> None:
    """Print what is removed and why, what was left alone, and the totals."""
    for item in found.freed:
        print(f"{item.n_bytes:>15,}  {item.what:<10}  {item.path}  ({item.why})")
    for path, what in found.left:
        print(f"left alone: {path} {what}")
    verb = "freed" if applied else "can be freed with gc --apply"
    print(f"{_total(found.freed)} {verb}")
    print(f"{_total(found.kept)} kept")
    if applied:
        print(f"{free_now:,} bytes are free on the disk, {free_before:,} before")


def _total(items: Sequence[Item]) -> str:
    n_bytes = sum(item.n_bytes for item in items)
    return f"{_counted(len(items), 'item')}, {n_bytes:,} bytes"


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
