"""A store with runs of tiny files, published as a real run publishes them."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cnn.commands import verify
from cnn.runs import folders, records
from cnn.runs.records import RunRecord, StepOutcome
from cnn.store.keys import Key
from cnn.store.manifests import Headline
from cnn.store.refs import Kind, Ref
from cnn.store.store import Store
from tests.plain_record import PLAIN

OLD = datetime.now(UTC) - timedelta(days=100)
READS: dict[Kind, tuple[Kind, ...]] = {"dataset": (), "model": ("dataset",), "report": ("model",)}
FILES: dict[Kind, tuple[str, ...]] = {
    "dataset": ("images.npy",),
    "model": ("history.parquet", "model.json"),
    "report": ("history.png", "confusion.png"),
}


def artifact_path(store: Store, ref: Ref) -> Path:
    return store.root / "store" / ref.kind / ref.key


def age(path: Path, days: float = 90) -> None:
    """Set the times of a path and everything in it to so many days ago."""
    then = datetime.now(UTC).timestamp() - days * 86_400
    for item in (*path.rglob("*"), path):
        os.utime(item, (then, then), follow_symlinks=False)


def publish(store: Store, kind: Kind, seed: int, *reads: Ref) -> Ref:
    """Publish an artifact of 90 days ago whose files contain its seed."""
    key = Key(kind, {"settings": {"seed": seed}, "inputs": {ref.kind: ref.digest for ref in reads}})

    def produce(folder: Path) -> Headline:
        for name in FILES[kind]:
            (folder / name).write_text(f"{kind} {seed}")
        return {"name": "digits"} if kind == "dataset" else {}

    ref = store.publish(key, reads, produce).ref
    age(artifact_path(store, ref))
    return ref


def artifacts(store: Store, seed: int, data_seed: int = 0) -> dict[Kind, Ref]:
    refs: dict[Kind, Ref] = {}
    for kind, reads in READS.items():
        number = data_seed if kind == "dataset" else seed
        refs[kind] = publish(store, kind, number, *(refs[read] for read in reads))
    return refs


def add_run(store: Store, seed: int, data_seed: int = 0, **changes: Any) -> RunRecord:
    """Publish a run of 100 days ago with three artifacts; a higher seed is a later run."""
    refs = artifacts(store, seed, data_seed)
    created = OLD + timedelta(minutes=seed)
    steps = tuple(
        StepOutcome(step=kind, state="ran", why="new", seconds=1, ref=ref)
        for kind, ref in refs.items()
    )
    values = {
        "run": records.folder_name(created, f"digits-fast-seed{seed}"),
        "created": created,
        "seed": seed,
        "steps": steps,
        "headline": {"test_accuracy": 0.9},
    }
    record = PLAIN.model_copy(update=values | changes)
    opened = {kind: store.open(ref) for kind, ref in refs.items()}
    return folders.publish(store.runs, record, opened, "<p>report</p>")[0]


def promote(store: Store, *runs: str, track: str = "main") -> Path:
    """Copy the last run to a track's folder, with all runs in the history; return the folder."""
    folder = store.root / "promoted" / track
    shutil.copytree(store.runs / runs[-1], folder)
    (folder / "promoted.json").write_text(json.dumps([{"run": run} for run in runs]))
    return folder


def ref_of(record: RunRecord, kind: Kind) -> Ref:
    return next(step.ref for step in record.steps if step.ref and step.ref.kind == kind)


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    """Return bytes and time of every file below a folder, hidden ones too."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def temporaries(store: Store) -> list[Path]:
    """Return the hidden files and folders that no process should leave."""
    expected = {".lock", ".index.lock", ".verified", ".lease.lock"}
    return [path for path in store.root.rglob(".*") if path.name not in expected]


def is_intact(store: Store) -> bool:
    """Return whether nothing is broken and nothing temporary is left."""
    return not verify.verify(store).broken and not temporaries(store)
