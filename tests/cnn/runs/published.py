"""Records of runs that were created at known times, and what publishing them leaves."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cnn.runs import folders, records
from cnn.runs.records import RunRecord, StepOutcome
from cnn.store.refs import Ref
from cnn.tables import parquet
from tests.plain_record import PLAIN

CREATED = datetime(2026, 3, 1, 12, 30, 45, 250_000, tzinfo=UTC)
MODEL = Ref(kind="model", key="a" * 64, digest="b" * 64)


def record(name: str = "digits-fast-seed0", seconds: float = 0, **changes: Any) -> RunRecord:
    """Return the record of a run that was created some seconds after CREATED."""
    created = CREATED + timedelta(seconds=seconds)
    steps = (
        StepOutcome(step="load_dataset", state="cached", why="verified", seconds=0.1),
        StepOutcome(step="train_model", state="ran", why="new", seconds=2, ref=MODEL),
    )
    values = {
        "run": records.folder_name(created, name),
        "created": created,
        "steps": steps,
        "headline": {"test_accuracy": 0.98, "validation_accuracy": 0.97},
        "seconds": 12.5,
    }
    return RunRecord(**PLAIN.model_dump() | values | changes)


def publish(folder: Path, item: RunRecord) -> RunRecord:
    return folders.publish(folder, item, {})[0]


def indexed(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read(folder / "index.parquet").to_pylist()
    return rows


def names(folder: Path) -> list[str]:
    """Return the names of the runs in the index."""
    return [row["run"] for row in indexed(folder)]


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*") if path.name != ".index.lock")
