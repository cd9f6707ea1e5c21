"""Fetching from real servers: good, busy, refusing, lying and hanging ones."""

import gzip
import hashlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cnn.data import download, idx
from cnn.data.download import Deadline
from cnn.errors import DataError, UnreachableError

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
ARRAYS = {
    IMAGES: np.random.default_rng(0).integers(0, 256, (60, 5, 5), np.uint8),
    LABELS: np.arange(60, dtype=np.uint8) % 3,
}
PAGE = b"<!DOCTYPE html><title>Sign in to the network</title>"


class Server(ThreadingHTTPServer):
    """Answers below /good/, /busy/, /dead/ and so on, each in its own way."""

    daemon_threads = True

    def __init__(self, bodies: dict[str, bytes]) -> None:
        self.bodies, self.asked = bodies, Counter[str]()
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
        self.answer(body, 200 if self.server.asked["busy"] % 3 == 0 else 503)

    def overloaded(self, body: bytes) -> None:
        self.answer(PAGE, 503)

    def dead(self, body: bytes) -> None:
        self.answer(PAGE, 403)

    def gone(self, body: bytes) -> None:
        self.answer(PAGE, 404)

    def page(self, body: bytes) -> None:
        self.answer(PAGE)

    def empty(self, body: bytes) -> None:
        self.answer(b"")

    def short(self, body: bytes) -> None:
        self.answer(body[:-9])

    def broken(self, body: bytes) -> None:
        self.answer(body[:-9], length=len(body))

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
        self.answer(body, Content_Encoding="gzip")

    def moved(self, body: bytes) -> None:
        self.answer(b"", 302, Location=self.path.replace("moved", "good"))

    def hang(self, body: bytes) -> None:
        self.answer(body[:1], length=len(body))
        self.server.closing.wait(30)

    def drip(self, body: bytes) -> None:
        self.answer(b"", length=len(body))
        for start in range(0, len(body), 100):
            self.server.seen.append(bool(self.server.final and self.server.final.exists()))
            self.wfile.write(body[start : start + 100])
            time.sleep(0.002)


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The compressed files by name."""
    folder = tmp_path_factory.mktemp("bodies")
    for name, array in ARRAYS.items():
        idx.write(folder / name, array, compress=True)
    return {name: (folder / name).read_bytes() for name in ARRAYS}


@pytest.fixture(scope="module")
def digests(bodies: dict[str, bytes]) -> dict[str, str]:
    """SHA-256 of the unpacked bytes by name."""
    return {
        name: hashlib.sha256(gzip.decompress(body)).hexdigest() for name, body in bodies.items()
    }


@pytest.fixture
def server(bodies: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on this machine; nobody waits between two attempts."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: None)
    monkeypatch.setattr(download, "time", clock)
    with Server(bodies) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


def only_good_files(folder: Path, n_files: int = len(ARRAYS)) -> bool:
    """Return whether a folder holds that many data files, all whole, and nothing else."""
    names = {path.name for path in folder.iterdir() if path.suffix != ".bad"}
    assert all((idx.read(folder / name) == ARRAYS[name]).all() for name in names), names
    return len(names) == n_files


@pytest.mark.parametrize(
    "place", ["good", "busy", "recompressed", "unpacked", "encoded", "moved", "drip"]
)
def test_good_answers_are_kept(
    tmp_path: Path, server: Server, digests: dict[str, str], place: str
) -> None:
    """Whatever the packing, the data count; busy servers are asked again."""
    server.final = tmp_path / IMAGES
    found = download.fetch(digests, server.at(place), tmp_path, Deadline.after(20))
    assert found == {name: tmp_path / name for name in ARRAYS}
    assert only_good_files(tmp_path)


BAD = [
    ("dead", "HTTP 403 Forbidden", 1),
    ("gone", "HTTP 404 Not Found", 1),
    ("overloaded", "HTTP 503 Service Unavailable", 3),
    ("page", "HTML page, not an IDX file; it begins '<!DOCTYPE html><title>Sign in", 1),
    ("empty", "empty", 1),
    ("short", "cut off", 1),
    ("broken", "peer closed connection", 3),
    ("damaged", "the gzip file is damaged, its checksum", 1),
    ("changed", "wrong checksum", 1),
]


@pytest.mark.parametrize(("place", "reason", "n_asked"), BAD)
def test_bad_answers_are_reported_and_never_kept(
    tmp_path: Path,
    server: Server,
    digests: dict[str, str],
    place: str,
    reason: str,
    n_asked: int,
) -> None:
    """The error lists the address with what it answered and the remedy; no file is left."""
    (address,) = server.at(place)
    with pytest.raises(UnreachableError) as caught:
        download.fetch(digests, [address], tmp_path, Deadline.after(20))
    message = str(caught.value)
    assert (
        f"{IMAGES} could not be fetched from any of 1 addresses:\n  {address}{IMAGES}: " in message
    )
    assert reason in message
    assert "--data.source folder --data.path FOLDER" in message
    assert server.asked[place] == n_asked
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [place for place, _, _ in BAD])
def test_the_next_address_is_tried(
    tmp_path: Path,
    server: Server,
    digests: dict[str, str],
    place: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One bad mirror costs nothing but time; the log names the one that served."""
    addresses = server.at(place, "good", "moved")
    with caplog.at_level(logging.INFO):
        download.fetch(digests, addresses, tmp_path, Deadline.after(20))
    assert only_good_files(tmp_path)
    assert f"fetched {IMAGES} from {addresses[1]}" in caplog.messages
    assert server.asked["moved"] == 0


@pytest.mark.parametrize("place", ["page", "empty", "short", "changed"])
def test_the_error_names_no_file_that_is_gone(
    tmp_path: Path, server: Server, digests: dict[str, str], place: str
) -> None:
    """The temporary file was removed: a person could neither find nor delete it."""
    with pytest.raises(UnreachableError) as caught:
        download.fetch(digests, server.at(place), tmp_path, Deadline.after(20))
    assert ".part" not in str(caught.value)


def test_every_address_stands_in_the_error(
    tmp_path: Path, server: Server, digests: dict[str, str]
) -> None:
    """One message tells what each address answered, a port where nobody listens too."""
    addresses = [*server.at("dead", "page"), "http://127.0.0.1:9/", "no-address/"]
    with pytest.raises(UnreachableError) as caught:
        download.fetch(digests, addresses, tmp_path, Deadline.after(20))
    lines = str(caught.value).splitlines()
    assert [line.split(IMAGES)[0].strip() for line in lines[1:-1]] == addresses
    assert "refused" in lines[3]


def test_a_hanging_server_is_left_at_the_deadline(
    tmp_path: Path, server: Server, digests: dict[str, str]
) -> None:
    """Nobody waits longer than the deadline, and every address is asked."""
    started = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        download.fetch(digests, server.at("hang", "hang"), tmp_path, Deadline.after(0.6))
    assert time.monotonic() - started < 5
    assert str(caught.value).count("/hang/") == 2
    assert server.asked == {"hang": 2}
    assert list(tmp_path.iterdir()) == []


def test_a_hanging_server_leaves_time_for_the_others(
    tmp_path: Path, server: Server, digests: dict[str, str]
) -> None:
    """The first address may not use up the whole deadline."""
    download.fetch(digests, server.at("hang", "good"), tmp_path, Deadline.after(8))
    assert only_good_files(tmp_path)


def test_a_hanging_server_is_left_for_the_next_address(
    tmp_path: Path, server: Server, digests: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror that sends nothing for a while does not use up the time of the others."""
    monkeypatch.setattr(download, "READ_SECONDS", 0.2)
    download.fetch(digests, server.at("hang", "good"), tmp_path, Deadline.after(20))
    assert only_good_files(tmp_path)


def test_a_final_name_appears_only_when_the_file_is_whole(
    tmp_path: Path, server: Server, digests: dict[str, str]
) -> None:
    """While the bytes come in slowly, nothing stands under the name that others read."""
    server.final = tmp_path / IMAGES
    wanted = {IMAGES: digests[IMAGES]}
    download.fetch(wanted, server.at("drip"), tmp_path, Deadline.after(20))
    assert len(server.seen) > 5
    assert not any(server.seen)


def test_several_may_fetch_into_one_folder_at_once(
    tmp_path: Path, server: Server, digests: dict[str, str]
) -> None:
    """Each gets whole files, and no temporary one is left."""
    folder = tmp_path / "new" / "folder"

    def fetch(_: int) -> bool:
        download.fetch(digests, server.at("drip"), folder, Deadline.after(20))
        return all((idx.read(folder / name) == ARRAYS[name]).all() for name in ARRAYS)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fetch, range(4))) == [True] * 4
    assert only_good_files(folder)


def test_verified_files_are_not_fetched_again(
    tmp_path: Path, server: Server, digests: dict[str, str]
) -> None:
    """A second fetch asks no server."""
    for _ in range(2):
        download.fetch(digests, server.at("good"), tmp_path, Deadline.after(20))
        assert download.present(digests, tmp_path)
    assert server.asked == {"good": 2}


@pytest.mark.parametrize("content", [b"", PAGE, gzip.compress(b"\0\0\x08\x01\0\0\0\x01\7")])
def test_a_bad_file_in_the_folder_is_set_aside_and_fetched_once(
    tmp_path: Path,
    server: Server,
    digests: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    content: bytes,
) -> None:
    """An older failure under the final name repairs itself, and the log says so."""
    (tmp_path / IMAGES).write_bytes(content)
    assert not download.present(digests, tmp_path)
    (tmp_path / IMAGES).write_bytes(content)
    download.fetch(digests, server.at("good"), tmp_path, Deadline.after(20))
    assert only_good_files(tmp_path)
    assert (tmp_path / f"{IMAGES}.bad").read_bytes() == content
    assert f"{tmp_path / IMAGES}: " in caplog.text
    assert "set aside" in caplog.text


def test_a_bad_file_that_cannot_be_fetched_again_is_not_used(
    tmp_path: Path, server: Server, digests: dict[str, str]
) -> None:
    """Without a network, damaged data are refused, not read."""
    (tmp_path / IMAGES).write_bytes(b"damaged")
    with pytest.raises(UnreachableError):
        download.fetch(digests, server.at("dead"), tmp_path, Deadline.after(20))
    assert not (tmp_path / IMAGES).exists()


def test_asking_what_is_present_changes_nothing(tmp_path: Path, digests: dict[str, str]) -> None:
    """A plan looks at the downloads and leaves them as they are."""
    (tmp_path / IMAGES).write_bytes(b"damaged")
    assert not download.present(digests, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [IMAGES]


def test_a_bad_file_that_another_process_set_aside_is_fetched(
    tmp_path: Path, server: Server, digests: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that find the same damage at once do not trip over each other."""
    verify = download.verify

    def slower_than_another(path: Path, digest: str) -> None:
        try:
            verify(path, digest)
        except DataError:
            path.unlink()
            raise

    (tmp_path / IMAGES).write_bytes(b"damaged")
    monkeypatch.setattr(download, "verify", slower_than_another)
    download.fetch(digests, server.at("good"), tmp_path, Deadline.after(20))
    assert only_good_files(tmp_path)


def test_fetched_files_can_be_read_like_any_new_file(
    tmp_path: Path, server: Server, digests: dict[str, str]
) -> None:
    """Their permissions follow the umask, so that a store can be shared."""
    (tmp_path / "new").touch()
    download.fetch(digests, server.at("good"), tmp_path / "data", Deadline.after(20))
    assert (tmp_path / "data" / IMAGES).stat().st_mode == (tmp_path / "new").stat().st_mode


def test_a_deadline_runs_out() -> None:
    """The time left falls to 0 and no further."""
    assert 4 < Deadline.after(5).left <= 5
    assert Deadline.after(-1).left == 0
