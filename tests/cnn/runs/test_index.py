"""The index has one row per run, also with several processes or killed ones."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from cnn.io import atomic
from cnn.runs import index
from cnn.runs.records import GateDecision
from cnn.tables import parquet, schemas
from tests.cnn.runs.published import CREATED, MODEL, hidden, indexed, names, publish, record


def test_the_index_has_one_row_per_run(tmp_path: Path) -> None:
    """With everything needed to compare runs, in the schema of the table."""
    index.rebuild(tmp_path)
    assert indexed(tmp_path) == []
    assert parquet.read(tmp_path / "index.parquet").schema.equals(schemas.SCHEMAS["runs"])
    kept = GateDecision(outcome="kept", track="digits", because="already promoted")
    publish(tmp_path, record(deployment="nightly", gate=kept))
    publish(tmp_path, record(seconds=60, status="failed", steps=(), headline={}, error="diverged"))
    first, second = indexed(tmp_path)
    assert first == {
        "schema_version": schemas.SCHEMA_VERSION,
        "run": "20260301T123045Z-digits-fast-seed0",
        "created": CREATED,
        "status": "completed",
        "data": "digits",
        "recipe": "fast",
        "seed": 0,
        "test_accuracy": 0.98,
        "test_accuracy_ci_low": None,
        "test_accuracy_ci_high": None,
        "validation_accuracy": 0.97,
        "n_steps_run": 1,
        "n_steps_cached": 1,
        "seconds": 12.5,
        "model_digest": MODEL.digest,
        "deployment": "nightly",
        "gate": "kept",
    }
    columns = ("status", "test_accuracy", "model_digest")
    assert [second[column] for column in columns] == ["failed", None, None]


def test_processes_that_publish_at_once_lose_no_row(tmp_path: Path) -> None:
    """Each rebuilds the index, which has all runs in the end."""
    code = f"""
from pathlib import Path
from cnn.runs import folders, records
item = records.RunRecord.model_validate_json({record().model_dump_json()!r})
for _ in range(15):
    folders.publish(Path({str(tmp_path)!r}), item, {{}})
"""
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(60) for process in started] == [0, 0]
    published = sorted(path.name for path in tmp_path.glob("[!.]*/"))
    assert len(published) == 30
    assert sorted(names(tmp_path)) == published
    assert hidden(tmp_path) == []


def test_a_run_published_during_a_slow_rebuild_gets_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own rebuild waits for the slow one and then reads all records."""
    write_rows, collected, go_on = parquet.write_records, threading.Event(), threading.Event()

    def slow_at_first(path: Path, name: str, rows: list[dict[str, Any]]) -> None:
        if not collected.is_set():
            collected.set()
            assert go_on.wait(10)
        write_rows(path, name, rows)

    monkeypatch.setattr(parquet, "write_records", slow_at_first)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(publish, tmp_path, record("slow"))
        assert collected.wait(10)
        quick = pool.submit(publish, tmp_path, record("quick"))
        wait([quick], timeout=0.3)
        go_on.set()
    assert set(names(tmp_path)) == {slow.result().run, quick.result().run}


def test_an_index_older_than_a_run_folder_is_completed(tmp_path: Path) -> None:
    """The run's process was killed in between; a current index is left alone."""
    first = publish(tmp_path, record("first"))
    before = (tmp_path / "index.parquet").read_bytes()
    second = publish(tmp_path, record("second"))
    atomic.replace(tmp_path / "index.parquet", before)
    os.utime(tmp_path / "index.parquet", (0, 0))
    index.complete(tmp_path)
    assert names(tmp_path) == [first.run, second.run]
    inode = (tmp_path / "index.parquet").stat().st_ino
    index.complete(tmp_path)
    assert (tmp_path / "index.parquet").stat().st_ino == inode
    index.complete(tmp_path / "none")
    assert not (tmp_path / "none").exists()
