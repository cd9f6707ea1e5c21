"""Flow runs of a deployment, in this process: which failures are retried."""

import time
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from cnn.config import run as config
from cnn.errors import DataError, UnreachableError
from flows.train_and_explain import train_and_explain
from tasks.data import load_dataset
from tasks.runtime import deployment
from tests import hosts

LONG = 120.0  # seconds


def _deploy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat every flow run as one of a deployment."""
    run = FlowRun(flow_id=uuid4(), deployment_id=uuid4())
    monkeypatch.setattr(deployment, "flow_run", lambda: run)
    monkeypatch.setattr(deployment, "_end_with_the_worker", lambda: None)  # pytest has none


def _n_requests(store: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many requests a run sends to a host that refuses them, until it fails."""
    with hosts.serving({}) as server:
        hosts.patch_set(monkeypatch, "fashion-mnist", addresses=server.at("dead"))
        with pytest.raises(UnreachableError):
            train_and_explain(config.validate({"data": {"source": "fashion-mnist"}}), store=store)
        return server.asked["dead"]


def test_only_a_deployed_run_retries_a_download(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It makes three attempts; for a person at a terminal the run fails after the first."""
    monkeypatch.setattr(load_dataset.task, "retry_delay_seconds", [0.01, 0.02])
    once = _n_requests(tmp_path, monkeypatch)
    _deploy(monkeypatch)
    assert once > 0
    assert _n_requests(tmp_path, monkeypatch) == 3 * once


def test_loading_bad_data_is_not_retried(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another attempt would find the same files."""
    _deploy(monkeypatch)
    monkeypatch.setattr(load_dataset.task, "retry_delay_seconds", [LONG, LONG])
    (tmp_path / "pictures").mkdir()
    settings = config.validate({"data": {"source": "folder", "path": str(tmp_path / "pictures")}})
    started = time.monotonic()
    with pytest.raises(DataError):
        train_and_explain(settings, store=tmp_path / "artifacts")
    assert time.monotonic() - started < LONG
