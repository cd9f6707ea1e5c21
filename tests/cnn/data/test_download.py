"""Fetching from real servers: good, busy, refusing, lying and hanging ones."""

import gzip
import logging
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cnn.data import download, idx
from cnn.data.download import Deadline, Wanted
from cnn.errors import DataError, StoreUnwritableError, UnreachableError
from cnn.io import atomic
from tests.hosts import ARRAYS, IMAGES, JSON, LABELS, PAGE, Server, serving


def only_good_files(folder: Path, n_files: int = len(ARRAYS)) -> bool:
    """Return whether a folder holds that many data files, all whole, and nothing else."""
    names = {path.name for path in folder.iterdir() if path.suffix != ".bad"}
    assert all((idx.read(folder / name) == ARRAYS[name]).all() for name in names), names
    return len(names) == n_files


@pytest.mark.parametrize(
    "place",
    ["good", "busy", "recompressed", "unpacked", "encoded", "twice", "moved", "drip"],
)
def test_good_answers_are_kept(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted], place: str
) -> None:
    """Whatever the packing, the data count; busy servers are asked again."""
    server.final = tmp_path / IMAGES
    found = download.fetch(wanted, server.at(place), tmp_path, Deadline.after(20))
    assert found == {name: tmp_path / name for name in ARRAYS}
    assert only_good_files(tmp_path)


BAD = [
    ("dead", "HTTP 403 Forbidden", 1),
    ("gone", "HTTP 404 Not Found", 1),
    ("removed", "HTTP 410 Gone", 1),
    ("overloaded", "HTTP 503 Service Unavailable", 3),
    ("odd", "HTTP 520", 3),
    ("tomorrow", "HTTP 429 Too Many Requests", 1),
    ("page", "HTML page, not an IDX file; it begins '<!DOCTYPE html><title>Sign in", 1),
    ("json", 'text, not an IDX file; it begins \'{"error": "quota exceeded"', 1),
    ("empty", "empty", 1),
    ("short", "cut off", 1),
    ("more", "cut off", 1),
    ("broken", "peer closed connection", 3),
    ("reset", "reset by peer", 3),
    ("endless", "longer than 4,096 bytes", 1),
    ("garbled", "incorrect header check", 1),
    ("loop", "maximum allowed redirects", 21),
    ("nowhere", "label", 1),
    ("damaged", "the gzip file is damaged, its checksum", 1),
    ("changed", "wrong checksum", 1),
]


@pytest.mark.parametrize(("place", "reason", "n_asked"), BAD)
def test_bad_answers_are_reported_and_never_kept(
    tmp_path: Path,
    server: Server,
    wanted: dict[str, Wanted],
    place: str,
    reason: str,
    n_asked: int,
) -> None:
    """The error lists the address with what it answered and the remedy; no file is left."""
    (address,) = server.at(place)
    with pytest.raises(UnreachableError) as caught:
        download.fetch(wanted, [address], tmp_path, Deadline.after(20))
    message = str(caught.value)
    assert (
        f"{IMAGES} could not be fetched from any of 1 addresses:\n  {address}{IMAGES}: " in message
    )
    assert reason in message
    assert "--data.source folder --data.path FOLDER" in message
    assert server.asked[place] == n_asked
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["dead", "overloaded", "reset", "page", "endless", "changed"])
def test_the_next_address_is_tried(
    tmp_path: Path,
    server: Server,
    wanted: dict[str, Wanted],
    place: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One bad mirror costs nothing but time; the log names the one that served."""
    addresses = server.at(place, "good", "moved")
    with caplog.at_level(logging.INFO):
        download.fetch(wanted, addresses, tmp_path, Deadline.after(20))
    assert only_good_files(tmp_path)
    assert f"fetched {IMAGES} from {addresses[1]}" in caplog.messages
    assert server.asked["moved"] == 0


@pytest.mark.parametrize("place", ["page", "empty", "short", "changed"])
def test_the_error_names_no_file_that_is_gone(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted], place: str
) -> None:
    """The temporary file was removed: a person could neither find nor delete it."""
    with pytest.raises(UnreachableError) as caught:
        download.fetch(wanted, server.at(place), tmp_path, Deadline.after(20))
    assert ".part" not in str(caught.value)


def test_every_address_stands_in_the_error(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted]
) -> None:
    """One message tells what each address answered, a port where nobody listens too."""
    addresses = [*server.at("dead", "page"), "http://127.0.0.1:9/", "no-address/"]
    with pytest.raises(UnreachableError) as caught:
        download.fetch(wanted, addresses, tmp_path, Deadline.after(20))
    lines = str(caught.value).splitlines()
    assert [line.split(IMAGES)[0].strip() for line in lines[1:-1]] == addresses
    assert "refused" in lines[3]


def test_a_hanging_server_is_left_at_the_deadline(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted]
) -> None:
    """Nobody waits longer than the deadline, and every address is asked."""
    started = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        download.fetch(wanted, server.at("hang", "hang"), tmp_path, Deadline.after(0.6))
    assert time.monotonic() - started < 5
    assert str(caught.value).count("/hang/") == 2
    assert server.asked == {"hang": 2}
    assert list(tmp_path.iterdir()) == []


def test_a_hanging_server_leaves_time_for_the_others(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted]
) -> None:
    """The first address may not use up the whole deadline."""
    download.fetch(wanted, server.at("hang", "good"), tmp_path, Deadline.after(2))
    assert only_good_files(tmp_path)


def test_a_hanging_server_is_left_for_the_next_address(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror that sends nothing for a while does not use up the time of the others."""
    monkeypatch.setattr(download, "READ_SECONDS", 0.2)
    download.fetch(wanted, server.at("hang", "good"), tmp_path, Deadline.after(20))
    assert only_good_files(tmp_path)


def test_a_final_name_appears_only_when_the_file_is_whole(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted]
) -> None:
    """While the bytes come in slowly, nothing stands under the name that others read."""
    server.final = tmp_path / IMAGES
    one = {IMAGES: wanted[IMAGES]}
    download.fetch(one, server.at("drip"), tmp_path, Deadline.after(20))
    assert len(server.seen) > 5
    assert not any(server.seen)


def test_several_may_fetch_into_one_folder_at_once(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted]
) -> None:
    """Each gets whole files, and no temporary one is left."""
    folder = tmp_path / "new" / "folder"

    def fetch(_: int) -> bool:
        download.fetch(wanted, server.at("drip"), folder, Deadline.after(20))
        return all((idx.read(folder / name) == ARRAYS[name]).all() for name in ARRAYS)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fetch, range(4))) == [True] * 4
    assert only_good_files(folder)


def test_verified_files_are_not_fetched_again(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted]
) -> None:
    """A second fetch asks no server."""
    for _ in range(2):
        download.fetch(wanted, server.at("good"), tmp_path, Deadline.after(20))
        assert not any(download.problem(tmp_path / name, wanted[name]) for name in wanted)
    assert server.asked == {"good": 2}


@pytest.mark.parametrize(
    "content", [b"", PAGE, gzip.compress(b"\0\0\x08\x01\0\0\0\x01\7", mtime=0)]
)
def test_a_bad_file_in_the_folder_is_set_aside_and_fetched_once(
    tmp_path: Path,
    server: Server,
    wanted: dict[str, Wanted],
    caplog: pytest.LogCaptureFixture,
    content: bytes,
) -> None:
    """An older failure under the final name repairs itself, and the log says so."""
    (tmp_path / IMAGES).write_bytes(content)
    download.fetch(wanted, server.at("good"), tmp_path, Deadline.after(20))
    assert only_good_files(tmp_path)
    assert (tmp_path / f"{IMAGES}.bad").read_bytes() == content
    assert f"{tmp_path / IMAGES}: " in caplog.text
    assert "set aside" in caplog.text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (PAGE, "this is an HTML page, not an IDX file; it begins '<!DOCTYPE html><title>Sign in"),
        (JSON, "this is text, not an IDX file; it begins '{"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x01\7", mtime=0)[:-9], "the gzip file is cut off"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x01\7", mtime=0), "wrong checksum"),
    ],
)
def test_a_bad_file_that_cannot_be_fetched_again_is_refused_with_its_reason(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted], content: bytes, reason: str
) -> None:
    """Without a network damaged data are not read, and every run says what is wrong with them."""
    (tmp_path / IMAGES).write_bytes(content)
    for _ in range(2):
        with pytest.raises(UnreachableError) as caught:
            download.fetch(wanted, server.at("dead"), tmp_path, Deadline.after(20))
        assert f"set aside. {tmp_path / IMAGES}.bad: {reason}" in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == [f"{IMAGES}.bad"]


def test_asking_what_is_present_changes_nothing(tmp_path: Path, wanted: dict[str, Wanted]) -> None:
    """A plan looks at the downloads and leaves them as they are."""
    (tmp_path / IMAGES).write_bytes(b"damaged")
    assert "not an IDX file" in download.problem(tmp_path / IMAGES, wanted[IMAGES])
    assert "no such file" in download.problem(tmp_path / LABELS, wanted[LABELS])
    assert [path.name for path in tmp_path.iterdir()] == [IMAGES]


def test_a_bad_file_that_another_process_set_aside_is_fetched(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted]
) -> None:
    """Two that find the same damage at once do not trip over each other."""

    def slower_than_another(path: Path) -> None:
        try:
            wanted[IMAGES].verify(path)
        except DataError:
            path.unlink()
            raise

    (tmp_path / IMAGES).write_bytes(b"damaged")
    slow = {IMAGES: Wanted(slower_than_another, 4096)}
    download.fetch(slow, server.at("good"), tmp_path, Deadline.after(20))
    assert only_good_files(tmp_path, 1)


def test_fetched_files_can_be_read_like_any_new_file(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted]
) -> None:
    """Their permissions follow the umask, so that a store can be shared."""
    (tmp_path / "new").touch()
    download.fetch(wanted, server.at("good"), tmp_path / "data", Deadline.after(20))
    assert (tmp_path / "data" / IMAGES).stat().st_mode == (tmp_path / "new").stat().st_mode


def test_what_a_killed_download_left_is_removed_and_nothing_that_is_in_use(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted]
) -> None:
    """A later fetch sweeps the folder, also where it has nothing to fetch."""
    for _ in range(2):
        (tmp_path / f".{IMAGES}.0123.part").write_bytes(b"half")
        with atomic.temporary_file(tmp_path / IMAGES) as in_use:
            download.fetch(wanted, server.at("good"), tmp_path, Deadline.after(20))
            parts = [path for path in tmp_path.iterdir() if path.suffix == ".part"]
            assert parts == [in_use]
    assert only_good_files(tmp_path)


def test_one_fetches_and_the_others_wait_for_it(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted]
) -> None:
    """Every file comes once, however many ask for it together."""
    with ThreadPoolExecutor(4) as pool:
        tasks = [
            pool.submit(download.fetch, wanted, server.at("drip"), tmp_path, Deadline.after(20))
            for _ in range(4)
        ]
        assert all(task.result() for task in tasks)
    assert server.asked == {"drip": 2}


def test_nobody_waits_for_another_longer_than_half_of_the_time(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted]
) -> None:
    """One that holds the lock and does not get on is overtaken."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with download._alone(tmp_path, Deadline.after(5)):
            taken.set()
            done.wait(20)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        taken.wait(5)
        started = time.monotonic()
        download.fetch(wanted, server.at("good"), tmp_path, Deadline.after(2))
        done.set()
    assert 1 <= time.monotonic() - started < 2
    assert only_good_files(tmp_path)


def test_a_file_system_without_locks_does_not_stop_a_download(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems have none; the rename alone keeps the files whole."""

    def refuse(handle: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(download.fcntl, "flock", refuse)
    with download._alone(tmp_path, Deadline.after(5)):
        pass


DISK = """
import resource, sys
from functools import partial
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


def test_a_limit_on_the_size_of_files_is_named(tmp_path: Path, bodies: dict[str, bytes]) -> None:
    """The error has the path and the free bytes; no address is blamed, nothing is left."""
    with serving(bodies) as server:
        words = [sys.executable, "-c", DISK, IMAGES, server.at("good")[0], tmp_path]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert f"{IMAGES} could not be written to {tmp_path}: File too large; " in said
    assert "bytes are free there" in said
    assert list(tmp_path.iterdir()) == []


def test_the_free_bytes_are_those_beside_what_was_written(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted once the part is gone, they would belie the disk that is full."""
    monkeypatch.setattr(atomic, "free_bytes", lambda folder: len(list(folder.glob(".*.part"))))

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "flush", full)
    with pytest.raises(StoreUnwritableError, match="No space left on device; 1 bytes are free"):
        download.fetch(wanted, server.at("good"), tmp_path, Deadline.after(20))


@pytest.mark.parametrize("number", [28, 122, 30, 5])  # full, quota, read-only, broken
def test_a_disk_that_fails_is_named(
    tmp_path: Path,
    server: Server,
    wanted: dict[str, Wanted],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """No other address is tried, old files stay, the temporary one is removed."""

    def fail(path: Path) -> None:
        raise OSError(number, "the disk says no")

    download.fetch({LABELS: wanted[LABELS]}, server.at("good"), tmp_path, Deadline.after(20))
    with monkeypatch.context() as patched, pytest.raises(StoreUnwritableError) as caught:
        patched.setattr(atomic, "flush", fail)
        download.fetch(wanted, server.at("good", "moved"), tmp_path, Deadline.after(20))
    assert f"could not be written to {tmp_path}: the disk says no; " in str(caught.value)
    assert server.asked["moved"] == 0
    assert only_good_files(tmp_path, 1)
    download.fetch(wanted, server.at("good"), tmp_path, Deadline.after(20))
    assert only_good_files(tmp_path)


def test_a_bad_file_on_a_read_only_disk_is_refused_with_its_reason(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That nothing can be written there is the smaller half of the story."""

    def refuse(path: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system")

    (tmp_path / IMAGES).write_bytes(PAGE)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StoreUnwritableError, match=f"{IMAGES}: this is an HTML page.*Read-only"):
        download.fetch(wanted, server.at("good"), tmp_path, Deadline.after(20))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, wanted: dict[str, Wanted]) -> None:
    """A file is in the way."""
    (tmp_path / "downloads").touch()
    with pytest.raises(StoreUnwritableError, match="downloads/mnist: Not a directory"):
        download.fetch(wanted, [], tmp_path / "downloads" / "mnist", Deadline.after(20))


def test_files_that_are_there_are_only_read(
    tmp_path: Path, server: Server, wanted: dict[str, Wanted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only folder of fetched files is as good as any other."""

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    download.fetch(wanted, server.at("good"), tmp_path, Deadline.after(20))
    for name in ("temporary_file", "flush", "replace"):
        monkeypatch.setattr(atomic, name, refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    download.fetch(wanted, [], tmp_path, Deadline.after(20))
