"""Fetching from real servers: good, busy, refusing, lying and hanging ones."""

import gzip
import hashlib
import io
import itertools
import logging
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray

from cnn.data import download, idx
from cnn.data.download import Deadline, Wanted
from cnn.errors import DataError, StoreUnwritableError, UnreachableError
from cnn.io import atomic
from tests.hosts import PAGE, Server, serving

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
ARRAYS: dict[str, NDArray[np.uint8]] = {
    IMAGES: np.random.default_rng(0).integers(0, 256, (60, 5, 5), np.uint8),
    LABELS: np.arange(60, dtype=np.uint8) % 3,
}
CONTENTS = {
    name: bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    for name, array in ARRAYS.items()
}
BODIES = {name: gzip.compress(content) for name, content in CONTENTS.items()}
WANTED = {
    name: Wanted(partial(download.verify, digest=hashlib.sha256(content).hexdigest()), 4096)
    for name, content in CONTENTS.items()
}


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the pauses between attempts, in seconds, instead of waiting for them."""
    recorded: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=recorded.append)
    monkeypatch.setattr(download, "time", clock)
    return recorded


@pytest.fixture
def server(sleeps: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A local server, reached without a proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(BODIES) as server:
        yield server


def fetch(folder: Path, addresses: Sequence[str], seconds: float = 20) -> dict[str, Path]:
    return download.fetch(WANTED, addresses, folder, Deadline.after(seconds))


def refusal(folder: Path, addresses: Sequence[str]) -> str:
    """Return the message of a fetch that fails."""
    with pytest.raises(UnreachableError) as caught:
        fetch(folder, addresses)
    return str(caught.value)


def failure(url: str, target: Path, seconds: float = 20) -> str:
    """Return the reason of a transfer that fails; assert that it leaves the folder empty."""
    with download.client() as client, pytest.raises(download.ERRORS) as caught:
        download.transfer(client, url, WANTED[IMAGES], target, Deadline.after(seconds))
    assert list(target.parent.iterdir()) == []
    return download.reason(caught.value)


def only_good_files(folder: Path, n_files: int = len(ARRAYS)) -> bool:
    """Return whether a folder holds that many correct data files and, but for .bad, no others."""
    names = {path.name for path in folder.iterdir() if path.suffix != ".bad"}
    assert all((idx.read(folder / name) == ARRAYS[name]).all() for name in names), names
    return len(names) == n_files


def gzip_with_name_and_date(content: bytes) -> bytes:
    """Compress as `gzip FILE` does."""
    packed = io.BytesIO()
    with gzip.GzipFile("train-images-idx3-ubyte", "wb", 9, packed, 1e9) as stream:
        stream.write(content)
    return packed.getvalue()


def gzip_huffman(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31, 9, zlib.Z_HUFFMAN_ONLY)
    return packer.compress(content) + packer.flush()


Change = Callable[[bytes], bytes]
PACKINGS: dict[str, Change] = {
    "level 1": lambda content: gzip.compress(content, 1),
    "not compressed": lambda content: gzip.compress(content, 0),
    "name and date": gzip_with_name_and_date,
    "other strategy": gzip_huffman,
    "two members": lambda content: gzip.compress(content[:99]) + gzip.compress(content[99:]),
    "not packed": lambda content: content,
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_packing_does_not_matter(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture, packing: str
) -> None:
    """A mirror may recompress: no warning, one log line per file, and no second download."""
    server.bodies = {name: PACKINGS[packing](content) for name, content in CONTENTS.items()}
    assert server.bodies[IMAGES] != BODIES[IMAGES]
    with caplog.at_level(logging.INFO, "cnn"):
        for _ in range(2):
            fetch(tmp_path, server.at("good"))
            assert not any(download.problem(tmp_path / name, WANTED[name]) for name in WANTED)
    assert caplog.messages == [f"fetched {name} from {server.at('good')[0]}" for name in WANTED]
    assert only_good_files(tmp_path)
    assert (tmp_path / IMAGES).read_bytes() == server.bodies[IMAGES]
    assert server.asked == {"good": 2}


@pytest.mark.parametrize("place", ["busy", "encoded", "twice", "moved", "drip"])
def test_good_answers_are_kept(tmp_path: Path, server: Server, place: str) -> None:
    """Busy servers are asked again, redirects are followed, content encodings are undone."""
    assert fetch(tmp_path, server.at(place)) == {name: tmp_path / name for name in ARRAYS}
    assert only_good_files(tmp_path)


BAD = [
    ("dead", "HTTP 403 Forbidden", 1),
    ("gone", "HTTP 404 Not Found", 1),
    ("removed", "HTTP 410 Gone", 1),
    ("overloaded", "HTTP 503 Service Unavailable", 3),
    ("odd", "HTTP 520", 3),
    ("more", "cut off", 1),
    ("broken", "peer closed connection", 3),
    ("reset", "reset by peer", 3),
    ("endless", "longer than 4,096 bytes", 1),
    ("garbled", "incorrect header check", 1),
    ("loop", "maximum allowed redirects", 21),
    ("nowhere", "label", 1),
]


@pytest.mark.parametrize(("place", "reason", "n_asked"), BAD)
def test_bad_answers_are_reported_and_never_kept(
    tmp_path: Path, server: Server, place: str, reason: str, n_asked: int
) -> None:
    """The error lists each address with its answer, and the remedy; no file is left."""
    (address,) = server.at(place)
    first, answer, remedy = refusal(tmp_path, [address]).splitlines()
    assert first == f"{IMAGES} could not be fetched from any of 1 addresses:"
    assert answer.startswith(f"  {address}{IMAGES}: ")
    assert reason in answer
    assert "--data.source folder --data.path FOLDER" in remedy
    assert server.asked == {place: n_asked}
    assert list(tmp_path.iterdir()) == []


def changed_element(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


# How a body is damaged, and the reason given for it.
FAULTS: dict[str, tuple[Change, str]] = {
    "html": (lambda body: PAGE, f"an HTML page, not an IDX file; it begins {PAGE.decode()!r}"),
    "html after spaces": (lambda body: b"\r\n  " + PAGE.upper(), "HTML page"),
    "html in utf-8": (lambda body: b"\xef\xbb\xbf" + PAGE, "HTML page"),
    "packed html": (lambda body: gzip.compress(PAGE * 9), "not an IDX file"),
    "json": (lambda body: b'{"code": 429}', "this is text, not an IDX file; it begins '{"),
    "empty": (lambda body: b"", "the file is empty"),
    "packed nothing": (lambda body: gzip.compress(b""), "cut off"),
    "one byte": (lambda body: body[:1], "cut off"),
    "in the gzip header": (lambda body: body[:5], "cut off"),
    "cut at 60 %": (lambda body: body[: len(body) * 6 // 10], "the gzip file is cut off"),
    "without its last byte": (lambda body: body[:-1], "cut off"),
    "unpacked and cut": (lambda body: gzip.decompress(body)[:-1], "cut off"),
    "wrong crc": (lambda body: body[:-8] + bytes(4) + body[-4:], "the gzip file is damaged"),
    "wrong length": (lambda body: body[:-4] + bytes(4), "the gzip file is damaged"),
    "a byte flipped": (lambda body: body[:40] + bytes([body[40] ^ 255]) + body[41:], "is damaged"),
    "zeros at the end": (lambda body: body[: len(body) // 2] + bytes(len(body) // 2), "cut off"),
    "too long": (lambda body: gzip.compress(gzip.decompress(body) + b"\0"), "holds more"),
    **{
        f"changed, {name}": (
            lambda body, pack=pack: pack(changed_element(gzip.decompress(body))),
            f"{hashlib.sha256(changed_element(CONTENTS[IMAGES])).hexdigest()}, "
            f"expected {hashlib.sha256(CONTENTS[IMAGES]).hexdigest()}",
        )
        for name, pack in PACKINGS.items()
    },
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_is_set_aside_and_fetched_again_once(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """An earlier failure under the final name repairs itself; the log gives the reason."""
    spoil, reason = FAULTS[fault]
    body = spoil(BODIES[IMAGES])
    fetch(tmp_path, server.at("good"))
    (tmp_path / IMAGES).write_bytes(body)
    fetch(tmp_path, server.at("good"))
    assert only_good_files(tmp_path)
    assert (tmp_path / f"{IMAGES}.bad").read_bytes() == body
    assert server.asked == {"good": 3}
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path / IMAGES}: ")
    assert reason in message
    assert "set aside" in message


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_that_cannot_be_replaced_is_refused_with_its_reason(
    tmp_path: Path, server: Server, fault: str
) -> None:
    """Every run gives the reason, for the file and for the body that is no better; none is kept.

    The error does not name the temporary file of the body, which is gone.
    """
    spoil, reason = FAULTS[fault]
    server.bodies[IMAGES] = spoil(BODIES[IMAGES])
    (tmp_path / IMAGES).write_bytes(server.bodies[IMAGES])
    for n_runs in (1, 2):
        message = refusal(tmp_path, server.at("good", "dead"))
        assert re.search(rf"/good/{IMAGES}: .*{re.escape(reason)}", message)
        assert re.search(rf"set aside: {tmp_path / IMAGES}\.bad: .*{re.escape(reason)}", message)
        assert ".part" not in message
        assert server.asked == {"good": n_runs, "dead": n_runs}
        assert [path.name for path in tmp_path.iterdir()] == [f"{IMAGES}.bad"]


N_ASKED = {"busy": 3, "overloaded": 3, "reset": 3}
ORDERS = [
    *itertools.permutations(("dead", "busy", "hang", "good")),
    *((place, "good", "moved") for place in ("overloaded", "reset", "page", "endless", "changed")),
]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_addresses_are_tried_in_turn_until_one_serves(
    tmp_path: Path,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    order: tuple[str, ...],
) -> None:
    """A bad mirror costs only time; the log names the one that serves, the rest are not asked."""
    monkeypatch.setattr(download, "READ_SECONDS", 0.2)
    addresses = server.at(*order)
    with caplog.at_level(logging.INFO, "cnn"):
        download.fetch({IMAGES: WANTED[IMAGES]}, addresses, tmp_path, Deadline.after(60))
    served = next(i for i, place in enumerate(order) if place in ("busy", "good"))
    assert caplog.messages == [f"fetched {IMAGES} from {addresses[served]}"]
    assert server.asked == {place: N_ASKED.get(place, 1) for place in order[: served + 1]}
    assert only_good_files(tmp_path, 1)


def test_the_error_lists_every_address(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message has all answers: no such host or protocol, nothing listening at the port."""
    monkeypatch.setenv("NO_PROXY", "*")
    addresses = [
        *server.at("dead", "page"),
        *("http://127.0.0.1:9/", "http://[::1]:9/", "http://no-such-host.invalid/"),
        *("no-address/", "ftp://host.example/"),
    ]
    lines = refusal(tmp_path, addresses).splitlines()[1:-1]
    for line, address in zip(lines, addresses, strict=True):
        assert re.fullmatch(rf"  {re.escape(address + IMAGES)}: .+", line)
    assert "refused" in lines[2]


def test_a_hanging_server_leaves_time_for_the_others(tmp_path: Path, server: Server) -> None:
    """The first address may not use up the whole deadline."""
    fetch(tmp_path, server.at("hang", "good"), 2)
    assert only_good_files(tmp_path)


def test_a_final_name_appears_only_when_the_file_is_whole(tmp_path: Path, server: Server) -> None:
    """While the bytes come in slowly, readers find nothing under the final name."""
    server.final = tmp_path / IMAGES
    download.fetch({IMAGES: WANTED[IMAGES]}, server.at("drip"), tmp_path, Deadline.after(20))
    assert len(server.seen) > 5
    assert not any(server.seen)


def test_one_fetches_and_the_others_wait_for_it(tmp_path: Path, server: Server) -> None:
    """Every file is downloaded once, however many ask for it together; each gets whole files."""
    folder = tmp_path / "new" / "folder"

    def fetch_and_read(_: int) -> bool:
        found = fetch(folder, server.at("drip"))
        return all((idx.read(found[name]) == ARRAYS[name]).all() for name in ARRAYS)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fetch_and_read, range(4))) == [True] * 4
    assert server.asked == {"drip": 2}
    assert only_good_files(folder)


def test_waiting_for_another_process_ends_at_half_the_time(tmp_path: Path, server: Server) -> None:
    """A process that holds the lock without progress does not block the others."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with download._folder_lock(tmp_path, Deadline.after(5)):
            taken.set()
            done.wait(20)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        taken.wait(5)
        started = time.monotonic()
        fetch(tmp_path, server.at("good"), 2)
        done.set()
    assert 1 <= time.monotonic() - started < 2
    assert only_good_files(tmp_path)


def test_a_file_system_without_locks_does_not_stop_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems have none; the rename alone keeps the files whole."""

    def refuse(handle: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(download.fcntl, "flock", refuse)
    with download._folder_lock(tmp_path, Deadline.after(5)):
        pass


def test_describing_a_problem_changes_nothing(tmp_path: Path) -> None:
    """A plan inspects the downloads and leaves them as they are."""
    (tmp_path / IMAGES).write_bytes(b"damaged")
    assert "not an IDX file" in download.problem(tmp_path / IMAGES, WANTED[IMAGES])
    assert "no such file" in download.problem(tmp_path / LABELS, WANTED[LABELS])
    assert [path.name for path in tmp_path.iterdir()] == [IMAGES]


def test_a_bad_file_may_vanish_before_it_is_set_aside(tmp_path: Path, server: Server) -> None:
    """Another process that found the same damage was faster."""

    def slower_than_another(path: Path) -> None:
        try:
            WANTED[IMAGES].verify(path)
        except DataError:
            path.unlink()
            raise

    (tmp_path / IMAGES).write_bytes(b"damaged")
    slow = {IMAGES: Wanted(slower_than_another, 4096)}
    download.fetch(slow, server.at("good"), tmp_path, Deadline.after(20))
    assert only_good_files(tmp_path, 1)


def test_fetched_files_can_be_read_like_any_new_file(tmp_path: Path, server: Server) -> None:
    """Their permissions follow the umask, so that a store can be shared."""
    (tmp_path / "new").touch()
    fetch(tmp_path / "data", server.at("good"))
    assert (tmp_path / "data" / IMAGES).stat().st_mode == (tmp_path / "new").stat().st_mode


def test_leftovers_are_removed_but_files_in_use_are_not(tmp_path: Path, server: Server) -> None:
    """A fetch sweeps up after killed downloads, even if it has nothing to fetch."""
    for _ in range(2):
        (tmp_path / f".{IMAGES}.0123.part").write_bytes(b"half")
        with atomic.temporary_file(tmp_path / IMAGES) as in_use:
            fetch(tmp_path, server.at("good"))
            parts = [path for path in tmp_path.iterdir() if path.suffix == ".part"]
            assert parts == [in_use]
    assert only_good_files(tmp_path)


FETCH_WITH_SMALL_FILE_LIMIT = """
import resource, sys
from pathlib import Path
from cnn.data import download
from cnn.data.download import Deadline, Wanted
from cnn.errors import StoreUnwritableError
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
wanted = {sys.argv[1]: Wanted(lambda path: None, 4096)}
try:
    download.fetch(wanted, [sys.argv[2]], Path(sys.argv[3]), Deadline.after(20))
except StoreUnwritableError as error:
    print(error)
"""


def test_a_limit_on_the_size_of_files_is_named(tmp_path: Path, server: Server) -> None:
    """The error has the path and the free bytes; it blames no address, and nothing is left."""
    script = [sys.executable, "-c", FETCH_WITH_SMALL_FILE_LIMIT]
    arguments = [IMAGES, *server.at("good"), str(tmp_path)]
    output = subprocess.run([*script, *arguments], capture_output=True, text=True, check=True)
    assert f"{IMAGES} could not be written to {tmp_path}: File too large; " in output.stdout
    assert "bytes are free there" in output.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [28, 122, 30, 5])  # full, quota, read-only, broken
def test_a_disk_that_fails_is_named(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """No other address is tried, old files stay, the temporary one is removed.

    The free bytes are counted before that: after it, a full disk would seem to have room.
    """

    def fail(path: Path) -> None:
        raise OSError(number, "the disk fails")

    download.fetch({LABELS: WANTED[LABELS]}, server.at("good"), tmp_path, Deadline.after(20))
    with monkeypatch.context() as patched, pytest.raises(StoreUnwritableError) as caught:
        patched.setattr(atomic, "flush", fail)
        patched.setattr(atomic, "free_bytes", lambda folder: len(list(folder.glob(".*.part"))))
        fetch(tmp_path, server.at("good", "moved"))
    assert f"could not be written to {tmp_path}: the disk fails; 1 bytes" in str(caught.value)
    assert server.asked["moved"] == 0
    assert only_good_files(tmp_path, 1)
    fetch(tmp_path, server.at("good"))
    assert only_good_files(tmp_path)


def test_a_bad_file_on_a_read_only_disk_is_refused_with_its_reason(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The damage is reported too, not only that nothing can be written."""

    def refuse(path: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system")

    (tmp_path / IMAGES).write_bytes(PAGE)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StoreUnwritableError, match=f"{IMAGES}: this is an HTML page.*Read-only"):
        fetch(tmp_path, server.at("good"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file is in the way."""
    (tmp_path / "downloads").touch()
    with pytest.raises(StoreUnwritableError, match="downloads/mnist: Not a directory"):
        fetch(tmp_path / "downloads" / "mnist", [])


def test_files_that_are_fetched_are_only_read(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only folder of fetched files can be used."""

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    fetch(tmp_path, server.at("good"))
    for name in ("temporary_file", "flush", "replace"):
        monkeypatch.setattr(atomic, name, refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    fetch(tmp_path, [])


def test_a_server_that_says_when_to_come_back_is_asked_then(
    tmp_path: Path, server: Server, sleeps: list[float]
) -> None:
    """Retry-After is honoured; without it the pauses grow."""
    with download.client() as client:
        for url in (address + IMAGES for address in server.at("patient", "busy")):
            download.transfer(client, url, WANTED[IMAGES], tmp_path / IMAGES, Deadline.after(20))
    assert sleeps == [3, 1, 2]


@pytest.mark.parametrize(
    ("place", "seconds", "reason"),
    [
        ("tomorrow", 20, "HTTP 429"),  # asks for a longer pause than there is time
        ("patient", 2.5, "HTTP 429"),
        ("overloaded", 0.9, "HTTP 503"),
        ("silent", 20, "timed out"),
        ("drip", 0.5, "too slow: only"),
        ("good", 0, "no time left"),
    ],
)
def test_no_server_takes_longer_than_its_limit(
    tmp_path: Path,
    server: Server,
    sleeps: list[float],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    seconds: float,
    reason: str,
) -> None:
    """Busy, silent or slow, it is given up without a pause or a second attempt."""
    monkeypatch.setattr(download, "READ_SECONDS", 0.3)
    server.piece, server.pause = 10, 0.05
    assert reason in failure(server.at(place)[0] + IMAGES, tmp_path / IMAGES, seconds)
    assert sleeps == []
    assert server.asked == ({place: 1} if seconds else {})


def test_a_name_server_that_does_not_answer_blocks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DNS lookup has no timeout of its own, so the transfer goes on without it."""
    answer = threading.Event()

    def hang(*_: object, **__: object) -> None:
        answer.wait(20)
        raise socket.gaierror("no name server answers")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(download, "GRACE_SECONDS", 0.1)
    started = time.monotonic()
    reason = failure(f"http://host.example/{IMAGES}", tmp_path / IMAGES, 0.2)
    answer.set()
    assert time.monotonic() - started < 2
    assert reason == "no answer in time"


def test_a_dead_proxy_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader learns that the proxy refused the connection, not the host."""
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "other.example")
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:9")
    reason = failure(f"http://host.example/{IMAGES}", tmp_path / IMAGES)
    assert "refused" in reason
    assert "(the environment sends this through the proxy 127.0.0.1:9)" in reason
    assert "secret" not in reason
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    reason = failure(f"http://127.0.0.1:9/{IMAGES}", tmp_path / IMAGES)
    assert "refused" in reason
    assert "proxy" not in reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PROXY", "socks5://127.0.0.1:9"),
        ("HTTP_PROXY", "gopher://127.0.0.1:9"),
        ("SSL_CERT_FILE", "/no/such/file.pem"),
    ],
)
def test_unusable_settings_of_the_environment_are_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A proxy of an unsupported kind, or a missing certificate file."""
    monkeypatch.setenv(name, value)
    with pytest.raises(UnreachableError, match="proxies or certificates cannot be used") as caught:
        download.client()
    assert name in str(caught.value)


def self_signed(folder: Path) -> ssl.SSLContext:
    """Return a server's TLS settings with a self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    pem = folder / "certificate.pem"
    pem.write_bytes(certificate.public_bytes(encoding) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def test_an_untrusted_certificate_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever intercepts the connection may send anything, so nothing is requested."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "data").mkdir()
    with serving(BODIES) as server:
        server.socket = self_signed(tmp_path).wrap_socket(server.socket, server_side=True)
        url = server.at("good")[0].replace("http:", "https:") + IMAGES
        reason = failure(url, tmp_path / "data" / IMAGES)
    assert "CERTIFICATE_VERIFY_FAILED" in reason
    assert server.asked == {}


def test_a_deadline_runs_out() -> None:
    """The time left falls to 0 and no further."""
    assert 4 < Deadline.after(5).left <= 5
    assert Deadline.after(-1).left == 0
