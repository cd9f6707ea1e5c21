"""Starting a flow from the command line, when Prefect is in trouble."""

import os
from pathlib import Path

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError

from cnn.config.run import RunConfig
from cnn.errors import ServerError, StoreUnwritableError
from flows import local_run, prefect_settings, train_and_explain
from tests import commands


def test_an_api_that_fails_during_the_run_is_a_server_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For example because the disk of its database is full."""

    def fails(*_: object, **__: object) -> None:
        request = httpx.Request("POST", "http://127.0.0.1/api/task_runs/")
        answer = httpx.Response(500, request=request)
        raise PrefectHTTPStatusError("Server error '500'", request=request, response=answer)

    monkeypatch.setattr(prefect_settings, "apply", lambda: None)
    monkeypatch.setattr(local_run, "_reach_server", lambda: None)
    monkeypatch.setattr(train_and_explain, "train_and_explain", fails)
    with pytest.raises(
        ServerError, match=r"API failed during the run: Server error '500'; .* run again"
    ):
        local_run.train_and_explain(RunConfig(), tmp_path, [], "")


def test_prefects_home_needs_space_beyond_its_database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The check leaves no file; without enough space it names the bytes that are needed."""
    local_run._check_home(tmp_path / "prefect")
    assert list((tmp_path / "prefect").iterdir()) == []
    (tmp_path / "prefect" / "prefect.db").write_bytes(b"x" * 1000)
    offsets: list[int] = []

    def none_left(handle: int, offset: int, n_bytes: int) -> None:
        offsets.append(offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", none_left)
    with pytest.raises(
        StoreUnwritableError, match=r"No space left.* 8,388,608 bytes are needed. Set"
    ):
        local_run._check_home(tmp_path / "prefect")
    assert offsets == [1000]


@pytest.mark.slow
def test_no_warning_about_events_follows_an_error(tmp_path: Path) -> None:
    """However many events are still queued when a run ends, they are sent first."""
    program = """
import sys
from flows import local_run
with local_run._prefect():
    from prefect.events import emit_event
    for _ in range(1000):
        emit_event("filterscope.test", {"prefect.resource.id": "filterscope.test"})
print("error: ours", file=sys.stderr)
"""
    done = commands.run_python(program, environment=commands.environment(tmp_path))
    assert "error: ours" in done.stderr
    assert "EventsWorker" not in done.stderr
