"""Flow runs of a deployment, in this process: which failures are tried again."""

import time
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from cnn.config import run as config
from cnn.errors import DataError, UnreachableError
from flows.train_and_explain import train_and_explain
from tasks.data import load_dataset
from tasks.runtime import deployment as deployed
from tests import hosts

LONG = 120.0  # seconds


def _deploy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every flow run for one of a deployment."""
    run = FlowRun(flow_id=uuid4(), deployment_id=uuid4())
    monkeypatch.setattr(deployed, "flow_run", lambda: run)
    monkeypatch.setattr(deployed, "_end_with_the_worker", lambda: None)  # pytest has none


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every flow run is one of a deployment."""
    _deploy(monkeypatch)


def _n_asked(store: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how often a run asked a host that answers nothing of use, before it failed."""
    with hosts.serving({}) as server:
        hosts.patch_set(monkeypatch, "fashion-mnist", addresses=server.at("dead"))
        with pytest.raises(UnreachableError):
            train_and_explain(config.validate({"data": {"source": "fashion-mnist"}}), store=store)
        return server.asked["dead"]


def test_only_a_deployed_run_tries_a_download_again(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Three attempts; a person at a terminal is told after the first."""
    monkeypatch.setattr(load_dataset.task, "retry_delay_seconds", [0.01, 0.02])
    once = _n_asked(tmp_path, monkeypatch)
    _deploy(monkeypatch)
    assert once > 0
    assert _n_asked(tmp_path, monkeypatch) == 3 * once


def test_bad_data_are_not_loaded_again(
    prefect_server: None, deployment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is there and wrong stays wrong."""
    monkeypatch.setattr(load_dataset.task, "retry_delay_seconds", [LONG, LONG])
    (tmp_path / "pictures").mkdir()
    settings = config.validate({"data": {"source": "folder", "path": str(tmp_path / "pictures")}})
    started = time.monotonic()
    with pytest.raises(DataError):
        train_and_explain(settings, store=tmp_path / "artifacts")
    assert time.monotonic() - started < LONG
