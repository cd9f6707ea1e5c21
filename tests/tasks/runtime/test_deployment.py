"""Rules for flow runs of a deployment; the tests of the services use real deployments."""

import logging
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from cnn.config import run as config
from cnn.errors import ConfigError
from tasks.data import load_dataset
from tasks.runtime import deployment

DIGITS = config.validate({"data": {"source": "digits"}})


def _deployed(monkeypatch: pytest.MonkeyPatch, **more: object) -> None:
    """Treat every flow run as one of a deployment."""
    run = FlowRun(flow_id=uuid4(), deployment_id=uuid4(), **more)
    monkeypatch.setattr(deployment, "flow_run", lambda: run)
    monkeypatch.setattr(deployment, "_end_with_the_worker", lambda: None)  # pytest has none


def test_a_download_is_retried_twice() -> None:
    """The second wait is longer than the first."""
    first, second = deployment.RETRY_SECONDS
    assert 0 < first < second
    assert load_dataset.task.retries == 2
    assert load_dataset.task.retry_delay_seconds == deployment.RETRY_SECONDS


def test_no_run_is_cancelled_if_the_api_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Better one run too many than none."""
    _deployed(monkeypatch, auto_scheduled=True, expected_start_time=datetime.now(UTC))
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        caplog.at_level(logging.WARNING, "cnn.run"),
    ):
        assert deployment.superseded() is None
    assert "cannot check whether a later scheduled run" in caplog.text


def test_a_run_that_a_person_started_is_never_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API is not even asked for later runs."""
    monkeypatch.setattr(deployment, "_later", lambda run: pytest.fail("the API was asked"))
    _deployed(monkeypatch, auto_scheduled=False, expected_start_time=datetime.now(UTC))
    assert deployment.superseded() is None


def test_folders_that_the_worker_would_remove_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Relative paths are refused in the worker's temporary folder, and accepted elsewhere."""
    _deployed(monkeypatch)
    elsewhere = Path("/srv/artifacts")
    data = {"data": {"source": "folder", "path": "pictures"}}
    with tempfile.TemporaryDirectory(suffix="prefect") as folder:
        monkeypatch.chdir(folder)
        with pytest.raises(ConfigError, match=r"store: artifacts lies in .*working_dir"):
            deployment.prepare(DIGITS, None)
        with pytest.raises(ConfigError, match=r"data\.path: .*pictures lies in .*working_dir"):
            deployment.prepare(config.validate(data), elsewhere)
        deployment.prepare(DIGITS, elsewhere)
        monkeypatch.chdir(tmp_path)
    deployment.prepare(DIGITS, Path("artifacts"))
