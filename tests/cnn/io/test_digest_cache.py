"""Remembered digests: believed only while nothing at all about a file has changed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnn.io import atomic, digest_cache
from cnn.io.digest_cache import DigestCache
from cnn.store import digests
from cnn.store.keys import Key
from cnn.store.manifests import Headline
from cnn.store.store import Store

OLD = 10**9  # nanoseconds after 1970
KEY = Key("model", {"step": "train_model"})


class Counted:
    """A digest of a file's text that counts how often it was asked for."""

    def __init__(self) -> None:
        self.n_reads = 0

    def __call__(self, path: Path) -> str:
        self.n_reads += 1
        return path.read_text()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("weights")
    return path


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Call it with seconds: the memory's clock is that much ahead from then on."""

    def ahead(seconds: float) -> None:
        monkeypatch.setattr(
            digest_cache.time, "time_ns", lambda: int(time.clock_gettime(0) * 1e9 + seconds * 1e9)
        )

    return ahead


def ask(tmp_path: Path, path: Path, name: str = "file") -> tuple[str, int]:
    """Return the digest that a new process would get, and how often it read the file."""
    known, compute = DigestCache(tmp_path / "memory.json"), Counted()
    digest = known.digest(path, name, compute)
    known.keep()
    return digest, compute.n_reads


def test_an_unchanged_file_is_read_once(
    tmp_path: Path, file: Path, later: Callable[[float], None]
) -> None:
    """From the second time on a look at it costs a stat."""
    later(10)
    assert [ask(tmp_path, file) for _ in range(3)] == [
        ("weights", 1),
        ("weights", 0),
        ("weights", 0),
    ]


@pytest.mark.parametrize(("age", "n_reads"), [(1.9, 1), (2.5, 0), (-3600, 1)])
def test_a_file_that_is_younger_than_two_seconds_is_not_remembered(
    tmp_path: Path, file: Path, later: Callable[[float], None], age: float, n_reads: int
) -> None:
    """It may change again within the same tick of its clock; nor is one from the future."""
    later(age)
    ask(tmp_path, file)
    later(10)
    assert ask(tmp_path, file) == ("weights", n_reads)


def test_the_age_is_that_before_the_file_was_read(
    tmp_path: Path, file: Path, later: Callable[[float], None]
) -> None:
    """A large file is hashed for longer than it takes to settle, and may change meanwhile."""
    known = DigestCache(tmp_path / "memory.json")

    def slow(path: Path) -> str:
        later(10)
        return "read for ten seconds"

    later(0)
    known.digest(file, "file", slow)
    known.keep()
    assert ask(tmp_path, file) == ("weights", 1)


def edited(path: Path) -> None:
    """Write as many other bytes and set the times of access and change back."""
    stat = path.stat()
    path.write_text("WEIGHTS")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def renamed(path: Path) -> None:
    """Put another file of that size and time in its place."""
    stat = path.stat()
    other = path.with_name("other")
    other.write_text("WEIGHTS")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)


def linked(path: Path) -> None:
    """Edit the file through another name of it."""
    other = path.with_name("other")
    os.link(path, other)
    edited(other)


def swapped(path: Path) -> None:
    """Move the file away and an edited copy, times and all, into its place."""
    away = path.with_name("away")
    path.rename(away)
    subprocess.run(["cp", "-p", away, path], check=True)
    edited(path)


def longer(path: Path) -> None:
    """Add bytes and set the times back."""
    stat = path.stat()
    path.write_text("weights and more")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [edited, renamed, linked, swapped, longer])
def test_a_changed_file_is_read_again(
    tmp_path: Path,
    file: Path,
    later: Callable[[float], None],
    change: Callable[[Path], None],
) -> None:
    """Whatever else was made to look the same, the file system knows of the change."""
    os.utime(file, ns=(OLD, OLD))
    later(10)
    ask(tmp_path, file)
    assert ask(tmp_path, file) == ("weights", 0)
    time.sleep(0.02)  # a tick of the file system's clock
    change(file)
    assert file.stat().st_mtime_ns == OLD
    digest, n_reads = ask(tmp_path, file)
    assert n_reads == 1
    assert digest != "weights"


@pytest.mark.parametrize("part", range(4), ids=["size", "inode", "mtime", "ctime"])
def test_each_part_counts(
    tmp_path: Path, file: Path, later: Callable[[float], None], part: int
) -> None:
    """One that differs is enough to read the file again."""
    later(10)
    ask(tmp_path, file)
    kept = tmp_path / "memory.json"
    known, stat = json.loads(kept.read_text()), file.stat()
    parts = (stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
    assert known["file"][part] == parts[part]
    known["file"][part] += 1
    kept.write_text(json.dumps(known))
    assert ask(tmp_path, file) == ("weights", 1)


def test_only_names_that_were_asked_for_are_kept(
    tmp_path: Path, file: Path, later: Callable[[float], None]
) -> None:
    """A memory does not grow with files that are gone."""
    later(10)
    ask(tmp_path, file, "old")
    ask(tmp_path, file, "new")
    assert list(json.loads((tmp_path / "memory.json").read_text())) == ["new"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
seen = st.lists(values, max_size=7)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    content=st.binary()
    | values.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries({"file": values | seen}).map(lambda value: json.dumps(value).encode())
)
def test_a_damaged_memory_is_an_empty_one(
    tmp_path: Path, file: Path, later: Callable[[float], None], content: bytes
) -> None:
    """Whatever stands in it, the digest is right, and the memory is mended."""
    later(10)
    (tmp_path / "memory.json").write_bytes(content)
    assert ask(tmp_path, file) == ("weights", 1)
    assert ask(tmp_path, file) == ("weights", 0)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"file": ' * 50_000, b"1" * 10_000])
def test_a_memory_that_no_parser_takes_is_an_empty_one(
    tmp_path: Path, file: Path, later: Callable[[float], None], content: bytes
) -> None:
    """Nested too deeply, or a number too long: no error."""
    later(10)
    (tmp_path / "memory.json").write_bytes(content)
    assert ask(tmp_path, file) == ("weights", 1)


def test_a_disk_that_cannot_be_written_forgets(
    tmp_path: Path, file: Path, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only store is looked at all the same, each time anew."""

    def read_only(target: Path, content: bytes) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(atomic, "replace", read_only)
    later(10)
    assert [ask(tmp_path, file) for _ in range(2)] == [("weights", 1)] * 2
    monkeypatch.undo()
    (tmp_path / "memory.json").mkdir()
    assert ask(tmp_path, file) == ("weights", 1)


def test_two_processes_that_write_it_at_once_leave_it_whole(tmp_path: Path, file: Path) -> None:
    """Every reader sees one of the two memories, complete."""
    os.utime(file, ns=(OLD, OLD))
    path = tmp_path / "memory.json"
    code = f"""
import sys, time
from pathlib import Path
from cnn.io import digest_cache
digest_cache.time.time_ns = lambda: 10**20
for i in range(100):
    known = digest_cache.DigestCache(Path({str(path)!r}))
    known._known.clear()
    known.digest(Path({str(file)!r}), sys.argv[1], lambda path: sys.argv[1] * 5000)
    known.keep()
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, word]) for word in ("a", "b")]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            ((name, (*_, digest)),) = json.loads(path.read_text()).items()
            assert digest == name * 5000
            seen.add(name)
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen == {"a", "b"}
    assert {path.name for path in tmp_path.iterdir()} == {"file", "memory.json"}


def publish(store: Store, content: bytes) -> Path:
    """Publish an artifact of one file and return that file."""

    def produce(folder: Path) -> Headline:
        (folder / "weights.bin").write_bytes(content)
        return {}

    return store.open(store.publish(KEY, (), produce).ref) / "weights.bin"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The files that were hashed."""
    hashed: list[Path] = []
    of = digests.file_digest

    def counted(path: Path) -> str:
        hashed.append(path)
        return of(path)

    monkeypatch.setattr(digests, "file_digest", counted)
    return hashed


def test_verifying_an_unchanged_artifact_does_not_read_it(
    tmp_path: Path, later: Callable[[float], None], reads: list[Path]
) -> None:
    """50 MB are hashed once; from then on every process that looks takes milliseconds."""
    file = publish(Store(tmp_path), bytes(50_000_000))
    later(10)
    assert Store(tmp_path).find(KEY).manifest
    reads.clear()
    started = time.process_time()
    for _ in range(20):
        store = Store(tmp_path)
        found = store.find(KEY)
        assert found.manifest
        store.open(found.manifest.ref)
    assert reads == []
    assert time.process_time() - started < 0.5
    edited_at_one_place = file.read_bytes()[:-1] + b"1"
    time.sleep(0.02)
    stat = file.stat()
    file.write_bytes(edited_at_one_place)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert Store(tmp_path).find(KEY).problem == "weights.bin was changed"
    assert reads == [file]


def test_an_edit_right_after_publishing_is_noticed(tmp_path: Path) -> None:
    """Within the same second, at the same size, with the time set back."""
    store = Store(tmp_path)
    file = publish(store, b"weights")
    assert store.find(KEY).manifest
    stat = file.stat()
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.find(KEY).problem == "weights.bin was changed"


def test_what_is_damaged_is_not_remembered(
    tmp_path: Path, later: Callable[[float], None], reads: list[Path]
) -> None:
    """A problem is found each time, until the artifact is set aside."""
    file = publish(Store(tmp_path), b"weights")
    file.write_bytes(b"WEIGHTS")
    later(10)
    for _ in range(2):
        reads.clear()
        assert Store(tmp_path).find(KEY).problem == "weights.bin was changed"
        assert reads == [file]


def test_a_memory_of_another_artifact_is_not_believed(
    tmp_path: Path, later: Callable[[float], Any]
) -> None:
    """A copy of a store, files and memory, is hashed anew: its files are others."""
    publish(Store(tmp_path / "a"), b"weights")
    later(10)
    assert Store(tmp_path / "a").find(KEY).manifest
    subprocess.run(["cp", "-a", tmp_path / "a", tmp_path / "b"], check=True)
    (file,) = (tmp_path / "b/store/model").glob("*/weights.bin")
    edited(file)
    assert Store(tmp_path / "b").find(KEY).problem == "weights.bin was changed"
