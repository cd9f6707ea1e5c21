"""Cached digests are reused only while a file is unchanged."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
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
    """A digest function, the text of the file, that counts its calls."""

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
    """Return a function that sets the cache's clock some seconds ahead."""

    def ahead(seconds: float) -> None:
        monkeypatch.setattr(
            digest_cache.time, "time_ns", lambda: int(time.clock_gettime(0) * 1e9 + seconds * 1e9)
        )

    return ahead


def ask(tmp_path: Path, path: Path, name: str = "file") -> tuple[str, int]:
    """Return the digest that a new process would get, and how often it would read the file."""
    cache, compute = DigestCache(tmp_path / "cache.json"), Counted()
    digest = cache.digest(path, name, compute)
    cache.keep()
    return digest, compute.n_reads


def test_an_unchanged_file_is_read_once(
    tmp_path: Path, file: Path, later: Callable[[float], None]
) -> None:
    """From the second time on it is not opened."""
    later(10)
    assert [ask(tmp_path, file)[1] for _ in range(3)] == [1, 0, 0]


@pytest.mark.parametrize(("age", "n_reads"), [(1.9, 1), (2.5, 0), (-3600, 1)])
def test_a_file_younger_than_two_seconds_is_not_cached(
    tmp_path: Path, file: Path, later: Callable[[float], None], age: float, n_reads: int
) -> None:
    """It may change again within one clock tick. Nor is a file with a time in the future."""
    later(age)
    ask(tmp_path, file)
    later(10)
    assert ask(tmp_path, file) == ("weights", n_reads)


def test_the_age_is_taken_before_the_file_is_read(
    tmp_path: Path, file: Path, later: Callable[[float], None]
) -> None:
    """Hashing a large file may take long, and the file may change meanwhile."""
    cache = DigestCache(tmp_path / "cache.json")

    def slow(path: Path) -> str:
        later(10)
        return "read for ten seconds"

    later(0)
    cache.digest(file, "file", slow)
    cache.keep()
    assert ask(tmp_path, file) == ("weights", 1)


def edited(path: Path, text: str = "WEIGHTS") -> None:
    """Write other content and restore the times of access and modification."""
    stat = path.stat()
    path.write_text(text)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def longer(path: Path) -> None:
    edited(path, "weights and more")


def replaced(path: Path) -> None:
    """Replace the file by another one of the same size and times."""
    subprocess.run(["cp", "-p", path, path.with_name("other")], check=True)
    edited(path.with_name("other"))
    path.with_name("other").replace(path)


def linked(path: Path) -> None:
    """Edit the file through another name."""
    os.link(path, path.with_name("other"))
    edited(path.with_name("other"))


def swapped(path: Path) -> None:
    """Move the file away and put an edited copy with the same times in its place."""
    away = path.with_name("away")
    path.rename(away)
    subprocess.run(["cp", "-p", away, path], check=True)
    edited(path)


@pytest.mark.parametrize("change", [edited, longer, replaced, linked, swapped])
def test_a_changed_file_is_read_again(
    tmp_path: Path, file: Path, later: Callable[[float], None], change: Callable[[Path], None]
) -> None:
    """Size and times can be faked, but the inode or the ctime reveals the change."""
    os.utime(file, ns=(OLD, OLD))
    later(10)
    ask(tmp_path, file)
    assert ask(tmp_path, file) == ("weights", 0)
    time.sleep(0.02)  # more than a tick of the file system's clock
    change(file)
    assert file.stat().st_mtime_ns == OLD
    digest, n_reads = ask(tmp_path, file)
    assert n_reads == 1
    assert digest != "weights"


@pytest.mark.parametrize("part", range(4), ids=["size", "inode", "mtime", "ctime"])
def test_each_property_counts(
    tmp_path: Path, file: Path, later: Callable[[float], None], part: int
) -> None:
    """If one of them differs, the file is read again."""
    later(10)
    ask(tmp_path, file)
    kept = tmp_path / "cache.json"
    known, stat = json.loads(kept.read_text()), file.stat()
    parts = (stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
    assert known["file"][part] == parts[part]
    known["file"][part] += 1
    kept.write_text(json.dumps(known))
    assert ask(tmp_path, file) == ("weights", 1)


def test_only_requested_names_are_kept(
    tmp_path: Path, file: Path, later: Callable[[float], None]
) -> None:
    """The cache does not accumulate files that are gone."""
    later(10)
    ask(tmp_path, file, "old")
    ask(tmp_path, file, "new")
    assert list(json.loads((tmp_path / "cache.json").read_text())) == ["new"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
entries = st.fixed_dictionaries({"file": values | st.lists(values, max_size=7)})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(content=st.binary() | (values | entries).map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"file": ' * 50_000)
@example(b"1" * 10_000)
def test_a_damaged_cache_counts_as_empty(
    tmp_path: Path, file: Path, later: Callable[[float], None], content: bytes
) -> None:
    """Whatever it contains, the digest is right, and the cache is valid again afterwards."""
    later(10)
    (tmp_path / "cache.json").write_bytes(content)
    assert ask(tmp_path, file) == ("weights", 1)
    assert ask(tmp_path, file) == ("weights", 0)


def test_a_cache_that_cannot_be_written_is_not_used(
    tmp_path: Path, file: Path, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files in a read-only store are hashed each time, without an error."""

    def read_only(target: Path, content: bytes) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(atomic, "replace", read_only)
    later(10)
    assert [ask(tmp_path, file) for _ in range(2)] == [("weights", 1)] * 2
    monkeypatch.undo()
    (tmp_path / "cache.json").mkdir()
    assert ask(tmp_path, file) == ("weights", 1)


def publish(store: Store, content: bytes) -> Path:
    """Publish an artifact of one file and return that file."""

    def produce(folder: Path) -> Headline:
        (folder / "weights.bin").write_bytes(content)
        return {}

    return store.open(store.publish(KEY, (), produce).ref) / "weights.bin"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths of the files that were hashed."""
    hashed: list[Path] = []
    digest = digests.file_digest
    monkeypatch.setattr(digests, "file_digest", lambda path: hashed.append(path) or digest(path))
    return hashed


def test_verifying_an_unchanged_artifact_does_not_read_its_files(
    tmp_path: Path, later: Callable[[float], None], reads: list[Path]
) -> None:
    """50 MB are hashed once; verifying takes milliseconds from then on, until an edit."""
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
    time.sleep(0.02)
    edited(file, "\0" * 49_999_999 + "1")
    assert Store(tmp_path).find(KEY).problem == "weights.bin was changed"
    assert reads == [file]


def test_the_digest_of_a_damaged_file_is_not_cached(
    tmp_path: Path, later: Callable[[float], None], reads: list[Path]
) -> None:
    """The file is hashed each time until the artifact is in quarantine."""
    file = publish(Store(tmp_path), b"weights")
    edited(file)
    later(10)
    reads.clear()
    for _ in range(2):
        assert Store(tmp_path).find(KEY).problem == "weights.bin was changed"
    assert reads == [file, file]
