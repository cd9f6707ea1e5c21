"""Run folders and the index of all runs."""

import json
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn.errors import ArtifactError, ConfigError, StoreUnwritableError
from cnn.io import atomic
from cnn.runs import folders, index, records
from cnn.runs.records import GateDecision, RunRecord, StepOutcome
from cnn.store.refs import Kind, Ref
from cnn.tables import parquet, schemas

CREATED = datetime(2026, 3, 1, 12, 30, 45, 250_000, tzinfo=UTC)
MODEL = Ref(kind="model", key="a" * 64, digest="b" * 64)


def record(name: str = "digits-fast-seed0", seconds: float = 0, **changes: Any) -> RunRecord:
    """Return the record of a run that was created some seconds after CREATED."""
    created = CREATED + timedelta(seconds=seconds)
    steps = (
        StepOutcome(step="load_dataset", state="cached", why="verified", seconds=0.1),
        StepOutcome(step="train_model", state="ran", why="new", seconds=2, ref=MODEL),
    )
    values: dict[str, Any] = {
        "run": records.folder_name(created, name),
        "created": created,
        "status": "completed",
        "data": "digits",
        "recipe": "fast",
        "seed": 0,
        "config": {"train": {"seed": 0}},
        "training": {"steps": 300},
        "steps": steps,
        "headline": {"test_accuracy": 0.98, "validation_accuracy": 0.97},
        "seconds": 12.5,
    }
    return RunRecord(**values | changes)


def publish(folder: Path, item: RunRecord) -> RunRecord:
    return folders.publish(folder, item, {})[0]


def indexed(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read(folder / "index.parquet").to_pylist()
    return rows


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*") if path.name != ".index.lock")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("digits-fast-seed0", "digits-fast-seed0"),
        ("../../etc/passwd", "etc-passwd"),
        ("a/b\\c", "a-b-c"),
        (".hidden", "hidden"),
        ("my data: März", "my-data-M-rz"),
        ("", "run"),
        ("..", "run"),
        ("x" * 500, "x" * 80),
    ],
)
def test_a_folders_name_is_its_time_and_a_safe_name(name: str, wanted: str) -> None:
    """Names sort by time and lead nowhere else."""
    assert records.folder_name(CREATED, name) == f"20260301T123045Z-{wanted}"


@given(st.text())
def test_no_name_leads_out_of_the_folder_of_runs(name: str) -> None:
    """Whatever a data set is called, the name is one visible part of a path."""
    assert (
        Path(records.folder_name(CREATED, name))
        .name.encode("ascii")
        .startswith(b"20260301T123045Z-")
    )
    assert set(records.folder_name(CREATED, name)).isdisjoint("/\\\0 \n")


def test_a_published_run_has_everything_in_its_place(tmp_path: Path) -> None:
    """Figures, tables, arrays and the model are copied; the data set is not."""
    artifacts: dict[Kind, Path] = {}
    for kind, names in {
        "dataset": ("train-images.npy", "dataset.json"),
        "model": ("model.keras", "model.json", "history.parquet", "manifest.json"),
        "report": ("filters-conv1.png", "body.html"),
        "filters": ("filters.parquet", "conv1.npy"),
    }.items():
        artifacts[kind] = tmp_path / "store" / kind / "key"
        artifacts[kind].mkdir(parents=True)
        for name in names:
            (artifacts[kind] / name).write_text(f"{kind} {name}")
    item, folder = folders.publish(tmp_path / "runs", record(), artifacts, "<h1>ü</h1>")
    assert folder == tmp_path / "runs" / item.run
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "run.json",
        "report.html",
        "figures/filters-conv1.png",
        "tables/history.parquet",
        "tables/filters.parquet",
        "arrays/conv1.npy",
        "model/model.keras",
        "model/model.json",
    }
    assert (folder / "model" / "model.keras").read_text() == "model model.keras"
    assert (folder / "report.html").read_text(encoding="utf-8") == "<h1>ü</h1>"
    assert records.read(folder) == item == record()
    assert hidden(tmp_path / "runs") == []


def test_a_record_is_json_that_every_reader_takes(tmp_path: Path) -> None:
    """NaN and infinity are null in run.json, and empty in the index."""
    headline = {"test_accuracy": float("nan"), "validation_accuracy": float("inf")}
    item = publish(tmp_path, record(headline=headline))

    def refuse(token: str) -> None:
        raise AssertionError(token)

    text = (tmp_path / item.run / "run.json").read_text()
    assert json.loads(text, parse_constant=refuse)["headline"] == dict.fromkeys(headline)
    assert indexed(tmp_path)[0]["test_accuracy"] is None


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    """Two runs of one name in one second are two runs, in run.json and in the index too."""
    names = [publish(tmp_path, record()).run for _ in range(3)]
    base = record().run
    assert names == [base, f"{base}-2", f"{base}-3"]
    assert [row["run"] for row in indexed(tmp_path)] == names
    assert [records.read(tmp_path / name).run for name in names] == names


def test_the_index_has_one_row_a_run(tmp_path: Path) -> None:
    """What is compared between runs stands in it, in the schema of the table."""
    kept = GateDecision(outcome="kept", track="digits", because="promoted already")
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
    assert (second["status"], second["test_accuracy"], second["model_digest"]) == (
        "failed",
        None,
        None,
    )


def test_processes_that_publish_at_once_lose_no_row(tmp_path: Path) -> None:
    """The index is made anew by each of them, and has all runs in the end."""
    code = f"""
from pathlib import Path
from cnn.runs import folders, records
item = records.RunRecord.model_validate_json({record().model_dump_json()!r})
for _ in range(15):
    folders.publish(Path({str(tmp_path)!r}), item, {{}})
"""
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(60) for process in started] == [0, 0]
    there = {path.name for path in tmp_path.glob("[!.]*/")}
    assert len(there) == 30
    assert {row["run"] for row in indexed(tmp_path)} == there
    assert hidden(tmp_path) == []


def test_an_index_that_is_made_slowly_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who publishes while another one makes the index waits for it, and then makes it anew."""
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
    names = {slow.result().run, quick.result().run}
    assert {row["run"] for row in indexed(tmp_path)} == names


@pytest.mark.parametrize("damage", ["", "{", "{}"])
def test_a_damaged_record_is_left_out_with_a_warning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One bad run.json is named and does not hide the other runs."""
    bad, good = publish(tmp_path, record("bad")), publish(tmp_path, record("good"))
    path = tmp_path / bad.run / "run.json"
    path.write_text(damage)
    caplog.clear()
    index.rebuild(tmp_path)
    (warning,) = caplog.records
    assert (warning.levelno, str(path) in warning.message) == (logging.WARNING, True)
    assert [row["run"] for row in indexed(tmp_path)] == [good.run]
    with pytest.raises(ArtifactError, match=f"{path}: cannot be read"):
        records.read(path.parent)


def test_a_run_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    """Neither a folder nor a row of the index is there for half a run."""
    publish(tmp_path, record())
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ArtifactError, match="gone vanished while the run's folder was made"):
        folders.publish(tmp_path, record("other"), {"model": tmp_path / "gone"})
    assert sorted(tmp_path.iterdir()) == before
    assert len(indexed(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("20260301T123045Z-digits-fast-seed0", "20260301T123045Z-digits-fast-seed0"),
        ("20260301T123145Z", "20260301T123145Z-mnist-best-seed1"),
        ("best-seed1", "20260301T123145Z-mnist-best-seed1"),
        ("seed0-2", "20260301T123045Z-digits-fast-seed0-2"),
        ("latest", "20260301T123145Z-mnist-best-seed1"),
    ],
)
def test_a_run_is_found_by_name_beginning_end_or_as_the_latest(
    tmp_path: Path, name: str, wanted: str
) -> None:
    """A full name is that run, although another one begins with it."""
    for item in (record("mnist-best-seed1", seconds=60), record(), record()):
        publish(tmp_path, item)
    found, folder = records.find(tmp_path, name)
    assert found.run == wanted
    assert records.read(folder) == found


def test_the_latest_run_is_the_one_that_was_made_last(tmp_path: Path) -> None:
    """Within one second too, whatever the runs are called."""
    for seconds, name in ((0.1, "mnist-fast-seed1"), (0.2, "digits-fast-seed0")):
        publish(tmp_path, record(name, seconds))
    assert records.find(tmp_path, "latest")[0].run.endswith("digits-fast-seed0")


def test_the_latest_of_many_runs_of_one_name_is_the_last_number(tmp_path: Path) -> None:
    """The tenth run of a name comes after the second."""
    names = [publish(tmp_path, record(seconds=i / 100)).run for i in range(11)]
    assert records.find(tmp_path, "latest")[0].run == names[-1]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("seed", r"no run of that name in .*; there are 20260301T123045Z-a-seed0, 2026"),
        ("20260301", r"several runs of that name in .*; there are 20260301T123045Z-a-seed0, 2026"),
        ("../etc", "no run of that name"),
    ],
)
def test_an_unclear_name_is_refused_with_the_names_there_are(
    tmp_path: Path, name: str, wanted: str
) -> None:
    """A person sees at once what the run is called."""
    for item in (record("a-seed0"), record("b-seed1")):
        publish(tmp_path, item)
    with pytest.raises(ConfigError, match=wanted):
        records.find(tmp_path, name)


@pytest.mark.parametrize("name", ["latest", "x"])
def test_where_there_are_no_runs_none_is_found(tmp_path: Path, name: str) -> None:
    """Before the first run the message says that there is none."""
    with pytest.raises(ConfigError, match=f"run '{name}': no run .*; there are none"):
        records.find(tmp_path / "runs", name)


def test_an_empty_index_has_the_tables_schema(tmp_path: Path) -> None:
    """No runs are no rows, not no table."""
    index.rebuild(tmp_path)
    assert parquet.read(tmp_path / "index.parquet").schema.equals(schemas.SCHEMAS["runs"])
    assert indexed(tmp_path) == []


def test_a_run_that_the_index_cannot_take_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full just then leaves neither its folder nor another index."""
    publish(tmp_path, record())
    before = indexed(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context, pytest.raises(StoreUnwritableError, match="are free"):
        context.setattr(index, "rebuild", full)
        publish(tmp_path, record(seconds=1))
    assert [item.run for item in records.read_all(tmp_path)] == [record().run]
    assert indexed(tmp_path) == before
    assert hidden(tmp_path) == []


def test_a_run_whose_process_was_killed_before_the_index_gets_its_row(tmp_path: Path) -> None:
    """An index that is older than a run's folder is made anew; one that is not stays."""
    first = publish(tmp_path, record("first"))
    before = (tmp_path / "index.parquet").read_bytes()
    second = publish(tmp_path, record("second"))
    atomic.replace(tmp_path / "index.parquet", before)
    os.utime(tmp_path / "index.parquet", (0, 0))
    index.complete(tmp_path)
    assert [row["run"] for row in indexed(tmp_path)] == [first.run, second.run]
    inode = (tmp_path / "index.parquet").stat().st_ino
    index.complete(tmp_path)
    assert (tmp_path / "index.parquet").stat().st_ino == inode


def test_without_runs_there_is_no_index_to_complete(tmp_path: Path) -> None:
    """A missing folder stays missing."""
    index.complete(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_comparison_does_not_make_another_run_of_it(tmp_path: Path) -> None:
    """The latest run of some artifacts is found by them, whatever it was compared with."""
    made, more = (
        Ref(kind=kind, key=letter * 64, digest=letter * 64)
        for kind, letter in (("report", "a"), ("comparison", "b"))
    )
    steps = tuple(
        StepOutcome(step=ref.kind, state="ran", why="new", seconds=1, ref=ref)
        for ref in (made, more)
    )
    item, _ = folders.publish(tmp_path, record(steps=steps), {}, "<p>report</p>")
    found = records.latest_of(tmp_path, [made])
    assert found == (item, tmp_path / item.run)
    other = Ref(kind="report", key="c" * 64, digest="c" * 64)
    assert records.latest_of(tmp_path, [other]) is None
