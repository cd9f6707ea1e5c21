"""A server on this machine that answers as hosts do: well, busy, refusing, lying, hanging.

The first part of an address's path chooses how; the second is the file's name.
"""

import gzip
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnn.data import idx, published
from cnn.errors import DataError

PAGE = b"<!DOCTYPE html><title>Sign in to the network</title>"
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
ARRAYS: dict[str, NDArray[Any]] = {
    IMAGES: np.random.default_rng(0).integers(0, 256, (60, 5, 5), np.uint8),
    LABELS: np.arange(60, dtype=np.uint8) % 3,
}
MOST_BYTES = 4096
JSON = b'{"error": "quota exceeded", "code": 429}'


def small_set(n_train: int = 60, n_test: int = 20, side: int = 28) -> dict[str, NDArray[Any]]:
    """Return images and labels by role, with every class of ten in both parts."""
    rng = np.random.default_rng(n_train)
    arrays: dict[str, NDArray[Any]] = {}
    for part, n in (("train", n_train), ("test", n_test)):
        labels = np.arange(n, dtype=np.uint8) % 10
        noise = rng.integers(0, 90, (n, side, side))
        arrays[f"{part}-images"] = (noise + 16 * labels[:, None, None]).astype(np.uint8)
        arrays[f"{part}-labels"] = rng.permutation(labels)
    return arrays


def written(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
    """Write the files of a set into a folder; return their bytes by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for role, array in arrays.items():
        idx.write(folder / published.FILE_NAMES[role], array, compress=True)
    return {name: (folder / name).read_bytes() for name in published.FILE_NAMES.values()}


@contextmanager
def serving(bodies: Mapping[str, bytes]) -> Iterator["Server"]:
    """Yield a server of these bodies, by file name."""
    with Server(bodies) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


class Server(ThreadingHTTPServer):
    """Answers below /good/, /busy/, /dead/ and so on, each in its own way."""

    daemon_threads = True

    def __init__(self, bodies: Mapping[str, bytes]) -> None:
        self.bodies, self.asked = dict(bodies), Counter[str]()
        self.piece, self.pause = 100, 0.002  # of /drip/
        self.seen: list[bool] = []
        self.final: Path | None = None
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    def at(self, *places: str) -> list[str]:
        """Return the addresses of these places."""
        return [f"http://127.0.0.1:{self.server_address[1]}/{place}/" for place in places]

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that hang up."""


class Handler(BaseHTTPRequestHandler):
    """One answer; the first part of the path names the method that gives it."""

    server: Server

    def do_GET(self) -> None:
        """Count the request and answer it."""
        place, name = self.path.strip("/").split("/")
        self.server.asked[place] += 1
        with suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, place)(self.server.bodies[name])

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def answer(
        self, body: bytes, status: int = 200, length: int | None = None, **more: str
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def good(self, body: bytes) -> None:
        self.answer(body)

    def busy(self, body: bytes) -> None:
        """503 twice, then the file."""
        self.answer(body, 200 if self.server.asked["busy"] % 3 == 0 else 503)

    def overloaded(self, body: bytes) -> None:
        self.answer(PAGE, 503)

    def odd(self, body: bytes) -> None:
        """A status of a content network's own."""
        self.answer(PAGE, 520)

    def patient(self, body: bytes) -> None:
        """Asks to come back in 3 s, then answers."""
        again = self.server.asked["patient"] % 2 == 0
        self.answer(body, 200 if again else 429, Retry_After="3")

    def tomorrow(self, body: bytes) -> None:
        self.answer(PAGE, 429, Retry_After="86400")

    def dead(self, body: bytes) -> None:
        self.answer(PAGE, 403)

    def gone(self, body: bytes) -> None:
        self.answer(PAGE, 404)

    def removed(self, body: bytes) -> None:
        self.answer(PAGE, 410)

    def page(self, body: bytes) -> None:
        self.answer(PAGE)

    def json(self, body: bytes) -> None:
        self.answer(JSON)

    def empty(self, body: bytes) -> None:
        self.answer(b"")

    def short(self, body: bytes) -> None:
        self.answer(body[:-9])

    def broken(self, body: bytes) -> None:
        """Fewer bytes than were promised."""
        self.answer(body[:-9], length=len(body))

    def more(self, body: bytes) -> None:
        """More bytes than were promised."""
        self.answer(body, length=len(body) - 9)

    def reset(self, body: bytes) -> None:
        """Hangs up with a reset, in the middle of the body."""
        self.answer(body[: len(body) // 2], length=len(body))
        linger_for_0_seconds = b"\1\0\0\0\0\0\0\0"
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_0_seconds)
        self.connection.close()

    def damaged(self, body: bytes) -> None:
        self.answer(body[:-8] + bytes(8))

    def changed(self, body: bytes) -> None:
        unpacked = bytearray(gzip.decompress(body))
        unpacked[-1] ^= 1
        self.answer(gzip.compress(bytes(unpacked)))

    def recompressed(self, body: bytes) -> None:
        self.answer(gzip.compress(gzip.decompress(body), 1, mtime=1e9))

    def unpacked(self, body: bytes) -> None:
        self.answer(gzip.decompress(body))

    def encoded(self, body: bytes) -> None:
        """The packed file, called a transfer encoding of the unpacked one."""
        self.answer(body, Content_Encoding="gzip")

    def twice(self, body: bytes) -> None:
        """The packed file, packed once more for the transfer."""
        self.answer(gzip.compress(body), Content_Encoding="gzip")

    def garbled(self, body: bytes) -> None:
        """Called packed, and it is not."""
        self.answer(gzip.decompress(body), Content_Encoding="gzip")

    def moved(self, body: bytes) -> None:
        self.answer(b"", 302, Location=self.path.replace("moved", "good"))

    def loop(self, body: bytes) -> None:
        self.answer(b"", 302, Location=self.path)

    def nowhere(self, body: bytes) -> None:
        self.answer(b"", 302, Location=f"http://{'a' * 70}.example/")

    def hang(self, body: bytes) -> None:
        """Headers and one byte, then nothing."""
        self.answer(body[:1], length=len(body))
        self.server.closing.wait(30)

    def silent(self, body: bytes) -> None:
        """Takes the request and says nothing at all."""
        self.server.closing.wait(30)

    def endless(self, body: bytes) -> None:
        """Sends zeros until the client hangs up; no length is given."""
        self.send_response(200)
        self.end_headers()
        while not self.server.closing.is_set():
            self.wfile.write(bytes(1 << 16))

    def drip(self, body: bytes) -> None:
        """Small pieces with pauses; notes whether the final name was there before the end."""
        self.answer(b"", length=len(body))
        for start in range(0, len(body), self.server.piece):
            self.server.seen.append(bool(self.server.final and self.server.final.exists()))
            self.wfile.write(body[start : start + self.server.piece])
            self.server.closing.wait(self.server.pause)


def patch_set(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    """Give a published data set other addresses or digests while a test runs."""
    monkeypatch.setitem(published.SETS, name, replace(published.SETS[name], **changes))


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the unpacked bytes of a set's files by role."""
    return {role: idx.digest(folder / name) for role, name in published.FILE_NAMES.items()}


COMMAND = """
import sys
from cnn.data import published
from flows import cli
published.SETS["mnist"] = published.PublishedSet("MNIST", {addresses!r}, sha256={digests!r})
cli.main(sys.argv[1:])
"""


def refused_by_the_command(store: Path, known: Mapping[str, str], addresses: list[str]) -> str:
    """Return what the whole command says when it refuses what it takes for MNIST.

    It ends with the exit code of bad data, without a traceback, artifacts or a run folder.
    """
    script = COMMAND.format(digests=dict(known), addresses=tuple(addresses))
    done = subprocess.run(
        [sys.executable, "-c", script, "run", "--data.source", "mnist", "--store", store],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PREFECT_HOME": str(store.parent / "prefect"), "NO_PROXY": "127.0.0.1"},
    )
    assert done.returncode == DataError.exit_code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not [path for path in store.glob("*/*") if path.parent.name != "downloads"]
    return done.stderr
