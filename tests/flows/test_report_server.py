"""The report server, over a real socket: what it serves, and what it does not."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from flows import report_server
from tests.plain_record import PLAIN
from tests.services.databases import free_port

NAME = "20261125T030000Z-digits-fast-seed0"
EVIL = "<script>alert(1)</script>"


def _record(run: str, data: str, error: str = "") -> str:
    status = "failed" if error else "completed"
    changes = {"run": run, "status": status, "data": data, "error": error}
    return PLAIN.model_copy(update=changes).model_dump_json()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two runs, and many files that must not be served."""
    root = tmp_path_factory.mktemp("store")
    runs, beside = root / "runs", root / "runs-beside"
    run, failed = runs / NAME, runs / "20261126T030000Z-x"
    for folder in (run / "figures", failed, root / "store/model", runs / ".x.part", beside):
        folder.mkdir(parents=True)
    (run / "run.json").write_text(_record(NAME, "digits"))
    (failed / "run.json").write_text(_record("x", EVIL, EVIL))
    (run / "report.html").write_text("<h1>report</h1>")
    (run / "figures" / "history.png").write_bytes(b"\x89PNG")
    (run / "model.keras").write_bytes(b"PK")
    (run / "strange").write_text(EVIL)
    for hidden in (run / ".hidden", runs / ".index.lock", runs / ".x.part/report.html"):
        hidden.write_text("secret")
    for above in (root / "secret", root / "store/model/manifest.json", beside / "secret"):
        above.write_text("secret")
    (run / "link").symlink_to(root / "secret")
    (run / "folder").symlink_to(root)
    (runs / "linked").symlink_to(root / "store")
    return root


class Served:
    """A report server in a thread; requests go over its socket."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.port = free_port()
        app = report_server.app(folder, password)
        self._server = uvicorn.Server(uvicorn.Config(app, port=self.port, log_level="error"))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def get(self, path: str, **more: Any) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", **more)

    def raw(self, line: str) -> bytes:
        """Return the response to a request line as it is; clients would normalize its path."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(f"{line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while part := connection.recv(65_536):
                answer += part
        return answer


@pytest.fixture(scope="module")
def served(store: Path) -> Iterator[Served]:
    server = Served(store / "runs")
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (f"/{NAME}/report.html", "text/html; charset=utf-8"),
        (f"/{NAME}/", "text/html; charset=utf-8"),
        (f"/{NAME}/run.json", "application/json"),
        (f"/{NAME}/figures/history.png", "image/png"),
        (f"/{NAME}/model.keras", "application/zip"),
        (f"/{NAME}/strange", "application/octet-stream"),
        ("/", "text/html; charset=utf-8"),
    ],
)
def test_files_of_runs_are_served_with_their_types(served: Served, path: str, kind: str) -> None:
    """Browsers must not guess another type, and no script may run."""
    answer = served.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "sandbox allow-downloads" in policy
    head = httpx.head(f"http://127.0.0.1:{served.port}{path}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        f"/{NAME}/../../secret",
        f"/{NAME}/..%2f..%2fsecret",
        "/%2e%2e/secret",
        "/%2e%2e%2fsecret",
        "/..%5csecret",
        "/../runs-beside/secret",
        "//etc/passwd",
        "/%2fetc/passwd",
        f"/{NAME}//report.html",
        f"/{NAME}/./report.html",
        f"/{NAME}/link",
        f"/{NAME}/folder/secret",
        "/linked/model/manifest.json",
        "/../store/model/manifest.json",
        f"/{NAME}/.hidden",
        "/.index.lock",
        "/.x.part/report.html",
        f"/{NAME}/report.html/",
        f"/{NAME}/figures",
        f"/{NAME}/figures/",
        f"/{NAME}",
        "/linked/",
        f"/{NAME}/%00",
        f"/{NAME}/report.html%00.png",
        "/" + "a" * 5000,
        "/" + "a/" * 3000,
        "/%ff%fe",
    ],
)
def test_nothing_else_is_served(served: Served, path: str) -> None:
    """No files outside the runs, no links, no hidden files, no folder listings."""
    answer = served.raw(f"GET {path} HTTP/1.1")
    assert answer.split(b" ")[1] == b"404"
    assert b"secret" not in answer.partition(b"\r\n\r\n")[2]
    assert b"x-content-type-options: nosniff" in answer.lower()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", f"/{NAME}/run.json"])
def test_it_is_read_only(served: Served, store: Path, method: str, path: str) -> None:
    """Any method but GET and HEAD is refused and changes nothing."""
    answer = served.raw(f"{method} {path} HTTP/1.1")
    assert answer.split(b" ")[1] == b"405"
    assert (store / "runs" / NAME / "run.json").exists()


def test_the_index_lists_runs_newest_first_and_escapes_them(served: Served) -> None:
    """Names of data and errors are shown as text; hidden folders and links are not listed."""
    text = served.get("/").text
    assert text.index("20261126T030000Z-x") < text.index(NAME)
    assert f'<a href="{NAME}/report.html">' in text
    assert '<a href="20261126T030000Z-x/run.json">' in text
    assert EVIL not in text
    assert "&lt;script&gt;" in text
    assert "linked" not in text
    assert ".x.part" not in text


def test_a_run_that_cannot_be_read_is_named(store: Path, served: Served) -> None:
    """The other runs are still listed."""
    broken = store / "runs" / "20261127T030000Z-broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    text = served.get("/").text
    assert "20261127T030000Z-broken" in text
    assert "cannot be read" in text
    assert NAME in text


def test_a_store_without_runs_has_an_index(tmp_path: Path) -> None:
    """The server may start before the first run."""
    assert "There are no runs yet" in report_server.listing(tmp_path / "runs")


def test_without_the_password_every_response_is_401(store: Path) -> None:
    """It does not even show whether a file exists; the browser asks the user."""
    server = Served(store / "runs", "admin:secret")
    try:
        for path in ("/", f"/{NAME}/report.html", "/nothing"):
            for auth in (None, ("admin", "wrong"), ("admin", "")):
                answer = server.get(path, auth=auth)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"].startswith("Basic ")
        for header in ("Basic", "Basic !!", "Bearer YWRtaW46c2VjcmV0", "Basic w6Q="):
            assert server.get("/", headers={"Authorization": header}).status_code == 401
        assert server.get("/", auth=("admin", "secret")).status_code == 200
        assert server.get("/nothing", auth=("admin", "secret")).status_code == 404
    finally:
        server.stop()
