"""Starting a flow from the command line, where Prefect is in trouble."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError

from cnn.config.run import RunConfig
from cnn.errors import ServerError, StoreUnwritableError
from flows import local_run, prefect_settings, train_and_explain
from tests import commands


def test_an_api_that_fails_during_the_run_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its database may be on a disk that has become full."""

    def fails(*_: object, **__: object) -> None:
        request = httpx.Request("POST", "http://127.0.0.1/api/task_runs/")
        answer = httpx.Response(500, request=request)
        raise PrefectHTTPStatusError("Server error '500'", request=request, response=answer)

    monkeypatch.setattr(prefect_settings, "apply", lambda: None)
    monkeypatch.setattr(local_run, "_reach_server", lambda: None)
    monkeypatch.setattr(train_and_explain, "train_and_explain", fails)
    with pytest.raises(ServerError, match=r"API failed while .* Server error '500'; .* run again"):
        local_run.train_and_explain(RunConfig(), tmp_path, [], "")


def test_prefects_home_needs_room_beyond_its_database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where there is some nothing is left there; where there is none the room is named."""
    local_run._check_home(tmp_path / "prefect")
    assert list((tmp_path / "prefect").iterdir()) == []
    (tmp_path / "prefect" / "prefect.db").write_bytes(b"x" * 1000)
    asked: list[int] = []

    def none_left(handle: int, offset: int, n_bytes: int) -> None:
        asked.append(offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", none_left)
    with pytest.raises(StoreUnwritableError, match=r"No space left.* 8,388,608 are needed. Set"):
        local_run._check_home(tmp_path / "prefect")
    assert asked == [1000]


@pytest.mark.slow
def test_nothing_is_said_of_events_behind_the_error(tmp_path: Path) -> None:
    """However many are on their way when a run ends, they are sent first."""
    program = """
import sys
from flows import local_run
with local_run._prefect():
    from prefect.events import emit_event
    for _ in range(1000):
        emit_event("filterscope.test", {"prefect.resource.id": "filterscope.test"})
print("error: ours", file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=commands.environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "error: ours" in done.stderr
    assert "EventsWorker" not in done.stderr
