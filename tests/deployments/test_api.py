"""What a busy server refuses is asked again, and only that."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from deployments import api
from deployments.settings import Settings, complete


@contextmanager
def _answering(*statuses: int) -> Iterator[tuple[Settings, list[str]]]:
    """Yield settings for a server that gives these answers, the last one from then on."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Give the next answer."""
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            seen.append(f"{self.path} {body}")
            self.send_response(statuses[min(len(seen), len(statuses)) - 1])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield complete({"PREFECT_API_URL": f"http://127.0.0.1:{server.server_port}/api"}), seen
        server.shutdown()


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_PAUSE", 0.01)


def test_what_a_busy_database_refuses_is_asked_again() -> None:
    """The same request goes out until it is taken."""
    with _answering(503, 503, 200) as (settings, seen):
        assert api.ask(settings, "POST", "/flows/", {"name": "a"}).status_code == 200
    assert seen == ['/api/flows/ {"name":"a"}'] * 3


def test_a_server_that_stays_busy_is_given_up() -> None:
    """Its last answer comes back after the time that there is."""
    with _answering(503) as (settings, seen):
        assert api.ask(settings, "POST", "/flows/", {}, seconds=0.3).status_code == 503
    assert len(seen) > 2


@pytest.mark.parametrize("status", [201, 401, 404, 409, 422, 500])
def test_any_other_answer_comes_back_at_once(status: int) -> None:
    """A refusal or a fault is not asked for twice."""
    with _answering(status, 200) as (settings, seen):
        assert api.ask(settings, "POST", "/flows/", {}).status_code == status
    assert len(seen) == 1


def test_where_nothing_answers_the_error_comes_out() -> None:
    """The caller says what to do about it."""
    with _answering(200) as (settings, _):
        pass
    with pytest.raises(httpx.ConnectError):
        api.ask(settings, "POST", "/flows/", {})
