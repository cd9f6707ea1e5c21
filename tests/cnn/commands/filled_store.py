"""A store with runs in it, made through the store itself, of tiny files."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cnn.runs import folders, records
from cnn.runs.records import RunRecord, StepOutcome
from cnn.store.keys import Key
from cnn.store.manifests import Headline
from cnn.store.refs import Kind, Ref
from cnn.store.store import Store

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
    """Let a file or a folder look as if nothing had changed in it for so long."""
    then = datetime.now(UTC).timestamp() - days * 86_400
    for item in (*path.rglob("*"), path):
        os.utime(item, (then, then), follow_symlinks=False)


def publish(store: Store, kind: Kind, seed: int, *reads: Ref) -> Ref:
    """Publish an old artifact whose files say its seed."""
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
    """Add a run with three artifacts of its own; a higher seed is a later run."""
    refs = artifacts(store, seed, data_seed)
    created = OLD + timedelta(minutes=seed)
    record = RunRecord(
        run=records.folder_name(created, f"digits-fast-seed{seed}"),
        created=created,
        status="completed",
        data="digits",
        recipe="fast",
        seed=seed,
        config={},
        training={},
        steps=tuple(
            StepOutcome(step=kind, state="ran", why="new", seconds=1, ref=ref)
            for kind, ref in refs.items()
        ),
        headline={"test_accuracy": 0.9},
        seconds=1,
    ).model_copy(update=changes)
    opened = {kind: store.open(ref) for kind, ref in refs.items()}
    return folders.publish(store.runs, record, opened, "<p>report</p>")[0]


def promote(store: Store, record: RunRecord, track: str = "main") -> Path:
    """Put a run's copies in a track's place, as a plain copy of a store has them."""
    folder = store.root / "promoted" / track
    shutil.copytree(store.runs / record.run, folder)
    (folder / "promoted.json").write_text(json.dumps([{"run": "gone"}, {"run": record.run}]))
    return folder


def ref_of(record: RunRecord, kind: Kind) -> Ref:
    return next(step.ref for step in record.steps if step.ref and step.ref.kind == kind)


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file below a folder with its bytes and its time, hidden ones too."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
