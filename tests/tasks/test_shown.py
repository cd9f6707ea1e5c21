"""What a finished run sends to Prefect's UI, with a server that is away."""

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.artifacts import create_table_artifact
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks import shown

NOWHERE = "http://127.0.0.1:9/api"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short ones."""
    monkeypatch.setattr(shown, "WAITS", (0.01, 0.01))


def test_a_server_that_is_away_for_a_moment_gets_the_artifact_once() -> None:
    """Sending is tried again until it works."""
    asked: list[dict[str, Any]] = []

    def create(**content: Any) -> None:
        asked.append(content)
        if len(asked) < 3:
            raise httpx.ConnectError("no answer")

    shown._create(create, key="metrics")
    assert asked == [{"key": "metrics"}] * 3


def test_any_other_error_is_not_tried_again() -> None:
    """A fault of ours comes out at once."""
    asked = []

    def create() -> None:
        asked.append(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        shown._create(create)
    assert len(asked) == 1


@pytest.mark.filterwarnings("ignore:Artifact creation outside of a flow:FutureWarning")
def test_a_server_that_stays_away_fails_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run is done by then; what is missing in the UI is said."""

    def send(*_: Any) -> None:
        shown._create(create_table_artifact, table=[{"a": 1}], key="metrics")

    monkeypatch.setattr(shown, "_show", send)
    with (
        temporary_settings({PREFECT_API_URL: NOWHERE}),
        caplog.at_level(logging.WARNING, "cnn.run"),
    ):
        shown.show(None, Path(), Path())  # type: ignore[arg-type]
    assert "cannot be shown in Prefect" in caplog.text
