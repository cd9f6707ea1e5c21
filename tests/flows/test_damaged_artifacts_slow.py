"""Runs whose cached artifacts are damaged or gone rebuild exactly those."""

import logging
import os
import shutil
from pathlib import Path

import pytest

from cnn.config import run as config
from cnn.pipeline.steps import STEPS
from cnn.runs import records
from cnn.runs.records import RunRecord
from flows.train_and_explain import train_and_explain
from tests.flows.conftest import task_states

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NETWORK = {"conv1_filters": 2, "conv2_filters": 3, "dense1_units": 8}
SETTINGS = config.validate(
    {"data": {"source": "digits"}, "train": {**NETWORK, "steps": 20, "log_every": 10}}
)
CACHED = dict.fromkeys((step.name for step in STEPS), "Cached") | {"publish_run": "Completed"}


def edited(path: Path) -> None:
    """Change one byte in the middle and restore the times."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


FILES = {
    "dataset": "dataset.json",
    "model": "model.keras",
    "evaluation": "predictions.parquet",
    "filters": "filters.parquet",
    "patches": "patches.parquet",
    "report": "confusion.png",
}


@pytest.fixture(scope="module")
def store(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store after one run."""
    root = tmp_path_factory.mktemp("damaged") / "artifacts"
    train_and_explain(SETTINGS, store=root)
    return root


def run(store: Path) -> tuple[RunRecord, dict[str, str]]:
    """Run again; return the record, and the name of each task run's state."""
    record = records.read(train_and_explain(SETTINGS, store=store))
    return record, task_states(record.flow_run_id)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the library's warnings; TensorFlow warns of many trainings in one process."""
    ours = (record for record in caplog.records if record.name.startswith("cnn"))
    return [record.message for record in ours if record.levelno >= logging.WARNING]


def folder_of(store: Path, kind: str) -> Path:
    (folder,) = (store / "store" / kind).iterdir()
    return folder


@pytest.mark.parametrize("kind", FILES)
def test_an_edited_artifact_is_quarantined_and_rebuilt(
    store: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning names the file; only that step runs, and the next run has nothing to do."""
    caplog.set_level(logging.WARNING, "cnn")
    shutil.rmtree(store / "quarantine", ignore_errors=True)
    before, _ = run(store)
    path = folder_of(store, kind) / FILES[kind]
    content = path.read_bytes()
    edited(path)
    caplog.clear()
    record, states = run(store)
    (step,) = [step.name for step in STEPS if step.makes == kind]
    (warning,) = warnings(caplog)
    assert f"{FILES[kind]} was changed" in warning
    assert states == CACHED | {step: "Completed"}
    (why,) = [item.why for item in record.steps if item.step == step]
    assert why == f"artifact {FILES[kind]} was changed"
    assert [item.ref for item in record.steps] == [item.ref for item in before.steps]
    assert kind == "model" or path.read_bytes() == content
    (quarantined,) = (store / "quarantine").iterdir()
    assert quarantined.name.startswith(f"{kind}-")
    record, states = run(store)
    assert states == CACHED
    assert record.seconds < 30


def test_several_damaged_artifacts_are_all_rebuilt(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """There is one warning for each."""
    caplog.set_level(logging.WARNING, "cnn")
    for kind, name in FILES.items():
        (folder_of(store, kind) / name).unlink()
    caplog.clear()
    record, states = run(store)
    assert set(states.values()) == {"Completed"}
    messages = warnings(caplog)
    assert len(messages) == len(FILES)
    assert all(sum(name in message for message in messages) == 1 for name in FILES.values())
    assert {item.state for item in record.steps} == {"ran"}


@pytest.mark.parametrize("kind", [*FILES, ""])
def test_removed_artifacts_are_rebuilt(store: Path, kind: str) -> None:
    """Removing all artifacts of a kind, or the whole store, costs only time."""
    before, _ = run(store)
    shutil.rmtree(store / "store" / kind if kind else store)
    record, states = run(store)
    assert set(states) == set(CACHED)
    assert [item.ref for item in record.steps] == [item.ref for item in before.steps]
    rebuilt = {item.ref.kind for item in record.steps if item.state == "ran" and item.ref}
    assert rebuilt == ({kind} if kind else set(FILES))
