"""Requests that a busy server refuses are repeated, and no others."""

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
    """Yield settings for a server that gives these responses, repeating the last one."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Send the next response."""
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            seen.append(f"{self.path} {body}")
            self.send_response(statuses[min(len(seen), len(statuses)) - 1])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield complete({"PREFECT_API_URL": f"http://127.0.0.1:{server.server_port}/api"}), seen
        server.shutdown()


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_PAUSE", 0.01)


@pytest.mark.parametrize(
    "statuses", [(503, 503, 200), *((status, 200) for status in (201, 401, 404, 409, 422, 500))]
)
def test_only_refusals_of_a_busy_database_are_repeated(statuses: tuple[int, ...]) -> None:
    """The same request is sent until another status comes, which is returned."""
    n = 3 if statuses[0] == 503 else 1
    with _answering(*statuses) as (settings, seen):
        response = api.ask(settings, "POST", "/flows/", {"name": "a"})
    assert response.status_code == statuses[n - 1]
    assert seen == ['/api/flows/ {"name":"a"}'] * n


def test_the_last_response_of_a_busy_server_is_returned_after_the_time_limit() -> None:
    """The request was repeated until then."""
    with _answering(503) as (settings, seen):
        assert api.ask(settings, "POST", "/flows/", {}, seconds=1.0).status_code == 503
    assert len(seen) > 2


def test_without_a_response_the_error_is_raised() -> None:
    """The caller adds what to do about it."""
    with _answering(200) as (settings, _):
        pass
    with pytest.raises(httpx.ConnectError):
        api.ask(settings, "POST", "/flows/", {})
