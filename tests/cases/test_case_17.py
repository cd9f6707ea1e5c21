"""Case 17: the step is cached, but its file is gone, cut off, replaced or edited."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from cnn.config import run as config
from cnn.pipeline.steps import STEPS
from cnn.runs import records
from cnn.runs.records import RunRecord
from flows.train_and_explain import train_and_explain

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SETTINGS = config.validate(
    {
        "data": {"source": "digits"},
        "train": {
            **{"conv1_filters": 2, "conv2_filters": 3, "dense1_units": 8},
            **{"steps": 20, "log_every": 10},
        },
    }
)
NAMES = [step.name for step in STEPS]


def replaced(path: Path) -> None:
    """Put other content of the same size in the file's place, with its times."""
    stat = path.stat()
    other = path.with_name("other")
    other.write_bytes(bytes(stat.st_size))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)


def edited(path: Path) -> None:
    """Change one byte in the middle and set the times back."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (Path.unlink, "{} is missing"),
    "cut off": (lambda path: os.truncate(path, path.stat().st_size // 2), "{} has "),
    "replaced": (replaced, "{} was changed"),
    "edited": (edited, "{} was changed"),
}
FILES = {
    "dataset": "dataset.json",
    "model": "model.keras",
    "evaluation": "predictions.parquet",
    "filters": "filters.parquet",
    "patches": "patches.parquet",
    "report": "confusion.png",
}


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture(scope="module")
def store(server: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store after one run."""
    root = tmp_path_factory.mktemp("case17") / "artifacts"
    train_and_explain(SETTINGS, store=root)
    return root


def run(store: Path) -> tuple[RunRecord, dict[str, str]]:
    """Run again; return the record, and the name of each task run's state."""
    record = records.read(train_and_explain(SETTINGS, store=store))
    with get_client(sync_client=True) as client:
        wanted = {"flow_runs": {"id": {"any_": [record.flow_run_id]}}}
        answer = client.request("POST", "/task_runs/filter", json=wanted)
    return record, {item["name"]: item["state_name"] for item in answer.json()}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the library warned of; TensorFlow warns of many trainings in one process."""
    ours = (record for record in caplog.records if record.name.startswith("cnn"))
    return [record.message for record in ours if record.levelno >= logging.WARNING]


def folder_of(store: Path, kind: str) -> Path:
    (folder,) = (store / "store" / kind).iterdir()
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_artifact_is_set_aside_and_made_again(
    store: Path, kind: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning names the file; that step is Completed, the others Cached, all succeed."""
    caplog.set_level(logging.WARNING, "cnn")
    shutil.rmtree(store / "quarantine", ignore_errors=True)
    before, _ = run(store)
    path = folder_of(store, kind) / FILES[kind]
    content = path.read_bytes()
    change, wanted = DAMAGE[damage]
    change(path)
    caplog.clear()
    record, states = run(store)
    (step,) = [step.name for step in STEPS if step.makes == kind]
    (said,) = warnings(caplog)
    assert wanted.format(FILES[kind]) in said
    assert states == dict.fromkeys(NAMES, "Cached") | {
        step: "Completed",
        "publish_run": "Completed",
    }
    (why,) = [item.why for item in record.steps if item.step == step]
    assert why.startswith(f"artifact {wanted.format(FILES[kind])}")
    assert [item.ref for item in record.steps] == [item.ref for item in before.steps]
    assert kind == "model" or path.read_bytes() == content
    (aside,) = (store / "quarantine").iterdir()
    assert aside.name.startswith(f"{kind}-")
    assert set(run(store)[1].values()) == {"Cached", "Completed"}


def test_several_damaged_at_once_are_all_made_again(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is named once."""
    caplog.set_level(logging.WARNING, "cnn")
    for kind, name in FILES.items():
        (folder_of(store, kind) / name).unlink()
    caplog.clear()
    record, states = run(store)
    assert set(states.values()) == {"Completed"}
    said = warnings(caplog)
    assert len(said) == len(FILES)
    assert all(sum(name in words for words in said) == 1 for name in FILES.values())
    assert {item.state for item in record.steps} == {"ran"}


@pytest.mark.parametrize("kind", [*FILES, ""])
def test_a_store_that_is_gone_costs_time_only(store: Path, kind: str) -> None:
    """A kind of artifacts, or the whole store, removed by hand: no error."""
    before, _ = run(store)
    shutil.rmtree(store / "store" / kind if kind else store)
    record, states = run(store)
    assert set(states) == {*NAMES, "publish_run"}
    assert [item.ref for item in record.steps] == [item.ref for item in before.steps]
    made = {item.ref.kind for item in record.steps if item.state == "ran" and item.ref}
    assert made == ({kind} if kind else set(FILES))


def test_untouched_everything_is_cached(store: Path) -> None:
    """And takes far less than 30 seconds."""
    run(store)
    record, states = run(store)
    assert states == dict.fromkeys(NAMES, "Cached") | {"publish_run": "Completed"}
    assert record.seconds < 30
