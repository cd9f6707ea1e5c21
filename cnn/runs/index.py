"""The index of runs: a table beside the run folders with one row per run."""

from pathlib import Path
from typing import Any

from cnn.io import atomic
from cnn.runs import records
from cnn.runs.records import RunRecord, number
from cnn.store.layout import INDEX_NAME
from cnn.tables import parquet


def complete(runs: Path) -> None:
    """Rebuild index.parquet if a run folder is newer: its process was killed in between."""
    index = runs / INDEX_NAME
    newest = max((path.stat().st_ctime_ns for path in runs.glob("[!.]*/")), default=0)
    if newest > (index.stat().st_mtime_ns if index.exists() else 0):
        rebuild(runs)


def rebuild(runs: Path) -> None:
    """Rebuild index.parquet from the run.json files; safe for several processes at once."""
    with (
        atomic.exclusive_lock(runs / ".index.lock"),
        atomic.temporary_file(runs / INDEX_NAME) as temporary,
    ):
        parquet.write_records(temporary, "runs", rows(runs))
        temporary.replace(runs / INDEX_NAME)


def rows(runs: Path) -> list[dict[str, Any]]:
    """Return the rows of index.parquet, computed from the run.json files."""
    return [_row(record) for record in records.read_all(runs)]


def _row(record: RunRecord) -> dict[str, Any]:
    states = [step.state for step in record.steps]
    models = [step.ref for step in record.steps if step.ref and step.ref.kind == "model"]
    headline = record.headline
    return {
        "run": record.run,
        "created": record.created,
        "status": record.status,
        "data": record.data,
        "recipe": record.recipe,
        "seed": record.seed,
        "test_accuracy": number(headline, "test_accuracy"),
        "test_accuracy_ci_low": number(headline, "test_accuracy_ci_low"),
        "test_accuracy_ci_high": number(headline, "test_accuracy_ci_high"),
        "validation_accuracy": number(headline, "validation_accuracy"),
        "n_steps_run": states.count("ran"),
        "n_steps_cached": states.count("cached"),
        "seconds": record.seconds,
        "model_digest": models[0].digest if models else None,
        "deployment": record.deployment,
        "gate": record.gate.outcome if record.gate else None,
    }
