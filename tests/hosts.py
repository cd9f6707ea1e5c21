"""A local server that behaves as real hosts do: good, busy, refusing, lying or hanging.

The first part of a URL's path chooses the behaviour; the second is the file's name.
"""

import gzip
import socket
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

PAGE = b"<!DOCTYPE html><title>Sign in to the network</title>"
STATUSES = {"dead": 403, "gone": 404, "removed": 410, "overloaded": 503, "odd": 520}


def small_set() -> dict[str, NDArray[Any]]:
    """Return 60 training and 20 test images and labels by role; both have all ten classes."""
    rng = np.random.default_rng(60)
    arrays: dict[str, NDArray[Any]] = {}
    for part, n in (("train", 60), ("test", 20)):
        labels = np.arange(n, dtype=np.uint8) % 10
        noise = rng.integers(0, 90, (n, 28, 28))
        arrays[f"{part}-images"] = (noise + 16 * labels[:, None, None]).astype(np.uint8)
        arrays[f"{part}-labels"] = rng.permutation(labels)
    return arrays


def written(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
    """Write the files of a set to a folder; return their bytes by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    for role, array in arrays.items():
        idx.write(folder / published.FILE_NAMES[role], array, compress=True)
    return {name: (folder / name).read_bytes() for name in published.FILE_NAMES.values()}


@contextmanager
def serving(bodies: Mapping[str, bytes]) -> Iterator["Server"]:
    """Yield a running server of these bodies, given by file name."""
    with Server(bodies) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


class Server(ThreadingHTTPServer):
    """Answers /good/, /busy/, /dead/ and so on, each in its own way; counts the requests."""

    daemon_threads = True

    def __init__(self, bodies: Mapping[str, bytes]) -> None:
        self.bodies, self.asked = dict(bodies), Counter[str]()
        self.piece, self.pause = 100, 0.002  # bytes and seconds, of /drip/
        self.seen: list[bool] = []
        self.final: Path | None = None
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    def at(self, *places: str) -> list[str]:
        """Return the base URLs of these places."""
        return [f"http://127.0.0.1:{self.server_address[1]}/{place}/" for place in places]

    def handle_error(self, *_: Any) -> None:
        """Do not report clients that hang up."""


class Handler(BaseHTTPRequestHandler):
    """One answer: a status, or what the method named like the first part of the path sends."""

    server: Server

    def do_GET(self) -> None:
        """Count the request and answer it."""
        place, name = self.path.strip("/").split("/")
        self.server.asked[place] += 1
        with suppress(BrokenPipeError, ConnectionResetError):
            if place in STATUSES:
                self.answer(PAGE, STATUSES[place])
            else:
                getattr(self, place)(self.server.bodies[name])

    def log_message(self, *_: Any) -> None:
        """Do not log requests."""

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

    def patient(self, body: bytes) -> None:
        """Asks the client to retry in 3 s, then sends the file."""
        again = self.server.asked["patient"] % 2 == 0
        self.answer(body, 200 if again else 429, Retry_After="3")

    def tomorrow(self, body: bytes) -> None:
        self.answer(PAGE, 429, Retry_After="86400")

    def page(self, body: bytes) -> None:
        self.answer(PAGE)

    def empty(self, body: bytes) -> None:
        self.answer(b"")

    def short(self, body: bytes) -> None:
        self.answer(body[:-9])

    def broken(self, body: bytes) -> None:
        """Fewer bytes than announced."""
        self.answer(body[:-9], length=len(body))

    def more(self, body: bytes) -> None:
        """More bytes than announced."""
        self.answer(body, length=len(body) - 9)

    def reset(self, body: bytes) -> None:
        """Resets the connection in the middle of the body."""
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

    def encoded(self, body: bytes) -> None:
        """The gzip file, declared as the content encoding of the unpacked one."""
        self.answer(body, Content_Encoding="gzip")

    def twice(self, body: bytes) -> None:
        """The gzip file, compressed once more for the transfer."""
        self.answer(gzip.compress(body), Content_Encoding="gzip")

    def garbled(self, body: bytes) -> None:
        """Declared as gzip, but not compressed."""
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
        """Accepts the request and sends nothing."""
        self.server.closing.wait(30)

    def endless(self, body: bytes) -> None:
        """Sends zeros until the client hangs up, without announcing a length."""
        self.send_response(200)
        self.end_headers()
        while not self.server.closing.is_set():
            self.wfile.write(bytes(1 << 16))

    def drip(self, body: bytes) -> None:
        """Small pieces with pauses; records whether the final name exists before the end."""
        self.answer(b"", length=len(body))
        for start in range(0, len(body), self.server.piece):
            self.server.seen.append(bool(self.server.final and self.server.final.exists()))
            self.wfile.write(body[start : start + self.server.piece])
            self.server.closing.wait(self.server.pause)


def patch_set(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    """Change a published data set, such as its addresses or digests, during a test."""
    monkeypatch.setitem(published.SETS, name, replace(published.SETS[name], **changes))


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the unpacked bytes of a set's files by role."""
    return {role: idx.digest(folder / name) for role, name in published.FILE_NAMES.items()}
