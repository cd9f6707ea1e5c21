"""Times plan, verify and gc on a store with many runs, each command as a process of its own.

    python -m benchmarks.full_store FOLDER [--runs 1000]

Creates the store in FOLDER unless it exists: six artifacts per run, none shared, with real keys and
manifests and tiny files. Nothing is removed: gc only says what it would free.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cnn.config import run as config
from cnn.pipeline.steps import STEPS
from cnn.runs import folders, index, records
from cnn.runs.records import RunRecord, StepOutcome
from cnn.store.manifests import Headline
from cnn.store.refs import Kind, Ref
from cnn.store.store import Store

FILES = {
    "dataset": ("images.npy", "labels.npy", "dataset.json"),
    "model": ("model.json", "history.parquet", "training.json"),
    "evaluation": tuple(f"{n}.parquet" for n in ("predictions", "metrics", "per_class")),
    "filters": ("filters.parquet", "filters.npy"),
    "patches": ("patches.parquet", "patches.npy"),
    "report": tuple(f"{n}.png" for n in ("history", "confusion", "filters-conv1")),
}
COMMAND = Path(sys.executable).with_name("filterscope")
SETTINGS = ["--data.source", "digits"]


def main() -> None:
    """Print the seconds of each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    arguments = parser.parse_args()
    store = Store(arguments.folder)
    if not store.root.exists():
        make(store, arguments.runs)
    for words in (
        ["plan", *SETTINGS],
        ["plan", *SETTINGS],
        ["plan", *SETTINGS, "--train.learning-rate", "0.002"],
        [
            "plan",
            *SETTINGS,
            "--explain.patches-per-filter",
            "5",
            "--evaluate.calibration-bins",
            "7",
        ],
        ["runs", "--json"],
        ["verify"],
        ["gc"],
    ):
        started = time.perf_counter()
        done = subprocess.run(
            [COMMAND, *words, "--store", store.root], check=False, capture_output=True
        )
        seconds = time.perf_counter() - started
        print(f"{seconds:6.2f} s  exit code {done.returncode}  filterscope {' '.join(words)}")


def make(store: Store, n_runs: int) -> None:
    """Publish that many runs with six artifacts each; each run has another seed."""
    begin = datetime.now(UTC) - timedelta(hours=n_runs + 2)
    for number in range(n_runs):
        refs = _artifacts(store, number)
        record = _record(begin + timedelta(hours=number), number, refs)
        folder = store.runs / record.run
        for ref in refs.values():
            _copy_and_age(store.open(ref), folder, record.created)
        (folder / records.REPORT_NAME).touch()
        (folder / records.RECORD_NAME).write_text(record.model_dump_json(indent=2))
    index.rebuild(store.runs)


def _copy_and_age(artifact: Path, folder: Path, created: datetime) -> None:
    """Copy an artifact's files into a run's folder, and make it look as old as the run."""
    for path in artifact.iterdir():
        if artifact.parent.name != "dataset" and (place := folders.place_of(path.name)):
            (folder / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / place)
    os.utime(artifact, (created.timestamp(),) * 2)


def _artifacts(store: Store, number: int) -> dict[Kind, Ref]:
    """Publish one artifact of each kind; number 0 is that of the default settings on digits."""
    choice = {"data": {"source": "digits", "split_seed": number}, "train": {"seed": number}}
    settings = config.validate(choice)
    refs: dict[Kind, Ref] = {}
    for step in STEPS:
        resolved = step.resolve(step.slice(settings), store.downloads)
        key = step.key(resolved, [refs[kind] for kind in step.reads])

        def produce(
            folder: Path, names: tuple[str, ...] = FILES[step.makes], content: str = key.digest
        ) -> Headline:
            for name in names:
                (folder / name).write_text(content)
            return {"n_files": len(names)}

        reads = tuple(refs[kind] for kind in step.reads)
        refs[step.makes] = store.publish(key, reads, produce).ref
    return refs


def _record(created: datetime, number: int, refs: dict[Kind, Ref]) -> RunRecord:
    outcomes = tuple(
        StepOutcome(step=step.name, state="ran", why="new", seconds=1, ref=refs[step.makes])
        for step in STEPS
    )
    return RunRecord(
        run=records.folder_name(created, f"digits-fast-seed{number}"),
        created=created,
        status="completed",
        data="digits",
        recipe="fast",
        seed=number,
        config={},
        training={},
        steps=outcomes,
        headline={"test_accuracy": 0.9},
        seconds=1,
    )


if __name__ == "__main__":
    main()
