"""A real Prefect server, one finished run, and helpers for the tests of the flows."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact
from prefect.testing.utilities import prefect_test_harness

from cnn.config import run as config
from cnn.config.run import RunConfig
from cnn.data import idx
from cnn.runs import records
from cnn.runs.records import RunRecord
from flows import cli
from flows.train_and_explain import train_and_explain

SHORT: dict[str, Any] = {"data": {"source": "digits"}, "train": {"steps": 60, "log_every": 20}}
SHORT_WORDS = ("--data.source", "digits", "--train.steps", "60", "--train.log_every", "20")
STEPS = [
    "load_dataset",
    "train_model",
    "evaluate_model",
    "export_filters",
    "mine_patches",
    "write_report",
]
Command = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Finished:
    """A finished run: its settings, its store and its folder."""

    config: RunConfig
    store: Path
    folder: Path

    @property
    def record(self) -> RunRecord:
        """The contents of run.json."""
        return records.read(self.folder)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A temporary Prefect server with its own database."""
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture(scope="session")
def finished(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A short run on digits, from an empty store."""
    store = tmp_path_factory.mktemp("finished") / "artifacts"
    settings = config.validate(SHORT)
    return Finished(settings, store, train_and_explain(settings, store=store))


@pytest.fixture
def store(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run's store, which the command uses."""
    root = tmp_path / "artifacts"
    shutil.copytree(finished.store, root, symlinks=True)
    monkeypatch.setenv("FILTERSCOPE_STORE", str(root))
    return root


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Call the command in this process; returns exit code, stdout and stderr."""
    monkeypatch.setenv("FILTERSCOPE_STORE", str(tmp_path / "artifacts"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str) -> tuple[int, str, str]:
        try:
            cli.main(words)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


def run(store: Path, **sections: Any) -> tuple[Path, RunRecord]:
    """Run the main job with the short settings, changed by sections; return folder and record."""
    values = {name: {**SHORT.get(name, {}), **section} for name, section in sections.items()}
    folder = train_and_explain(config.validate({**SHORT, **values}), store=store)
    assert isinstance(folder, Path)
    return folder, records.read(folder)


def task_states(flow_run_id: object) -> dict[str, str]:
    """Return the names of the final states of a flow run's tasks, by task name."""
    wanted = {"flow_runs": {"id": {"any_": [str(flow_run_id)]}}}
    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/task_runs/filter", json=wanted)
    return {item["name"]: item["state"]["name"] for item in answer.json()}


def ui_artifacts(flow_run_id: object) -> dict[str, Artifact]:
    """Return the artifacts of a flow run in the UI, by key."""
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[str(flow_run_id)]))
    with get_client(sync_client=True) as client:
        return {str(item.key): item for item in client.read_artifacts(artifact_filter=wanted)}


def idx_folder(folder: Path, images: Any, labels: Any) -> Path:
    """Write the same images and labels as training set and test set; return the folder."""
    folder.mkdir()
    for part in ("train", "t10k"):
        idx.write(folder / f"{part}-images-idx3-ubyte", images)
        idx.write(folder / f"{part}-labels-idx1-ubyte", np.asarray(labels, np.uint8))
    return folder
