"""Temporary files that end with their process, and files and folders replaced whole."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from cnn.io import atomic
from tests import ROOT


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@contextmanager
def process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run code in a new process until the block ends; it prints "ready" first."""
    command, pipe = [sys.executable, "-c", code, *map(str, arguments)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        try:
            yield started
        finally:
            started.kill()


HOLDER = """
import sys, time
from pathlib import Path
from cnn.io import atomic
with atomic.temporary_file(Path(sys.argv[1]) / "a.bin") as path:
    path.write_bytes(b"half")
    with atomic.temporary_folder(Path(sys.argv[1]), "b") as folder:
        (folder / "inside").mkdir()
        (folder / "inside" / "x").write_text("half")
        print("ready", flush=True)
        time.sleep(60)
"""


@contextmanager
def new_file(folder: Path) -> Iterator[Path]:
    with atomic.temporary_file(folder / "x") as path:
        path.write_bytes(b"content")
        yield path


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    with atomic.temporary_folder(folder, "x") as path:
        (path / "inside").write_bytes(b"content")
        yield path


temporary = pytest.mark.parametrize("new", [new_file, new_folder])
New = Callable[[Path], AbstractContextManager[Path]]


@temporary
def test_a_temporary_path_is_removed_after_the_block(tmp_path: Path, new: New) -> None:
    """Its name is hidden and ends in .part, so that no reader's glob finds it."""
    with new(tmp_path) as path:
        assert path.parent == tmp_path
        assert path.name.startswith(".x")
        assert path.suffix == atomic.SUFFIX == ".part"
    assert hidden(tmp_path) == []
    with pytest.raises(KeyError), new(tmp_path):
        raise KeyError
    assert hidden(tmp_path) == []


@temporary
def test_a_renamed_path_stays(tmp_path: Path, new: New) -> None:
    """A file or folder with its final name is no longer temporary."""
    with new(tmp_path) as path:
        path.rename(tmp_path / "x")
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert file.read_bytes() == b"content"
    assert atomic.sweep(tmp_path) == []


def test_a_sweep_spares_paths_that_are_being_written(tmp_path: Path) -> None:
    """By this process or by another one, files and folders."""
    with process(HOLDER, tmp_path), atomic.temporary_file(tmp_path / "mine") as mine:
        before = hidden(tmp_path)
        assert len(before) == 3
        assert atomic.sweep(tmp_path) == []
        assert hidden(tmp_path) == before
        assert mine.exists()


def test_a_sweep_removes_the_leftovers_of_a_killed_process(tmp_path: Path) -> None:
    """It returns what it removed, and leaves other names alone."""
    (tmp_path / "kept.part").touch()
    (tmp_path / ".kept").touch()
    with process(HOLDER, tmp_path) as started:
        started.send_signal(signal.SIGKILL)
        started.wait(10)
        left = [name for name in hidden(tmp_path) if name != ".kept"]
        assert len(left) == 2
        assert sorted(path.name for path in atomic.sweep(tmp_path)) == left
    assert sorted(path.name for path in tmp_path.iterdir()) == [".kept", "kept.part"]


def test_a_surviving_child_process_does_not_keep_its_parents_locks(tmp_path: Path) -> None:
    """A server that the process started meanwhile inherits no lock."""
    code = HOLDER.replace(
        'print("ready", flush=True)',
        "import subprocess; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)']); "
        "Path(sys.argv[2]).write_text(str(child.pid)); print('ready', flush=True)",
    )
    with process(code, tmp_path, tmp_path / "child") as started:
        started.kill()
        started.wait(10)
        assert len(atomic.sweep(tmp_path)) == 2
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_there_is_nothing_to_sweep_in_an_empty_or_missing_folder(tmp_path: Path) -> None:
    """A folder that does not exist yet is not an error."""
    assert atomic.sweep(tmp_path / "none") == []
    assert atomic.sweep(tmp_path) == []


def test_a_sweep_follows_no_links(tmp_path: Path) -> None:
    """What a link with a temporary name points to is not ours."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("content")
    (tmp_path / ".x.part").symlink_to(outside)
    (tmp_path / ".y.part").symlink_to(outside / "precious")
    assert atomic.sweep(tmp_path) == []
    assert (outside / "precious").read_text() == "content"


WORKER = """
import sys, time
from pathlib import Path
from cnn.io import atomic
folder, me, end = Path(sys.argv[1]), sys.argv[2], time.monotonic() + 3
print("ready", flush=True)
n = 0
while time.monotonic() < end:
    n += 1
    with atomic.temporary_file(folder / f"{me}.bin") as path:
        path.write_bytes(me.encode() * 1000)
        assert path.read_bytes() == me.encode() * 1000
        path.replace(folder / f"{me}.bin")
    with atomic.temporary_folder(folder, me) as path:
        (path / "a").write_text(me)
        (path / "b").write_text(me)
        assert sorted(item.name for item in path.iterdir()) == ["a", "b"]
    atomic.sweep(folder)
print(n)
"""


@pytest.mark.slow
def test_sweeps_and_writers_race_without_a_loss(tmp_path: Path) -> None:
    """Several processes write, rename and sweep at once; none loses what it is writing."""
    with ExitStack() as stack:
        workers = [stack.enter_context(process(WORKER, tmp_path, i)) for i in range(6)]
        for i, worker in enumerate(workers):
            output, _ = worker.communicate(timeout=60)
            assert worker.returncode == 0
            assert int(output) > 10
            assert (tmp_path / f"{i}.bin").read_bytes() == str(i).encode() * 1000
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("replaced", [False, True])
def test_a_new_file_that_is_removed_before_it_is_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """A sweep may remove it in between; the lock of a file without a name protects nothing."""
    locked, removed = atomic._locked, []

    def slow(path: Path, *args: int) -> int:
        if removed:
            return locked(path, *args)
        removed.append(path)
        handle = locked(path, *args) if replaced else -1
        path.unlink()
        if not replaced:
            return locked(path, *args)
        path.touch()
        return handle

    monkeypatch.setattr(atomic, "_locked", slow)
    with atomic.temporary_file(tmp_path / "x") as path:
        assert path.exists()
        assert path != removed[0]


def test_a_reader_sees_the_old_or_the_new_content(tmp_path: Path) -> None:
    """A reader that reads continuously never sees partial or missing content."""
    target = tmp_path / "below" / "record.json"
    contents = [bytes([65 + i]) * 200_000 for i in range(2)]
    atomic.replace(target, contents[0])
    over, seen = threading.Event(), set()

    def read() -> None:
        while not over.is_set():
            seen.add(target.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(60):
        atomic.replace(target, contents[i % 2])
    over.set()
    reader.join()
    assert seen == set(contents)
    assert hidden(target.parent) == []


def test_a_failed_replacement_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk loses the new content, not the old one."""
    target = tmp_path / "record.json"
    atomic.replace(target, b"old")

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        atomic.replace(target, b"new")
    assert target.read_bytes() == b"old"
    assert hidden(tmp_path) == []


def test_replacing_a_link_leaves_its_target(tmp_path: Path) -> None:
    """Nothing is written through the link."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "link").symlink_to(outside)
    atomic.replace(tmp_path / "link", b"new")
    assert outside.read_text() == "precious"
    assert not (tmp_path / "link").is_symlink()


def test_many_leftovers_are_swept_quickly(tmp_path: Path) -> None:
    """The leftovers of a thousand killed downloads do not delay a start."""
    for i in range(1000):
        (tmp_path / f".x.{i}.part").touch()
    started = time.monotonic()
    assert len(atomic.sweep(tmp_path)) == 1000
    assert time.monotonic() - started < 2


def test_a_replaced_folder_holds_only_the_new_files(tmp_path: Path) -> None:
    """Nothing of the earlier folder is left, and a block that fails changes nothing."""
    target = tmp_path / "many" / "folder"
    for name in ("one", "two"):
        with atomic.replacing_folder(target) as new:
            (new / name).touch()
            assert not (target / name).exists()
    with pytest.raises(ZeroDivisionError), atomic.replacing_folder(target) as new:
        (new / "three").touch()
        raise ZeroDivisionError
    assert [path.name for path in target.iterdir()] == ["two"]
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


def test_concurrent_writers_of_a_folder_each_publish_a_whole_one(tmp_path: Path) -> None:
    """Sixteen at once, four times each."""
    target = tmp_path / "folder"

    def write(number: int) -> None:
        for _ in range(4):
            with atomic.replacing_folder(target) as new:
                (new / str(number)).touch()
                (new / "number").write_text(str(number))

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(write, range(16)))
    (other,) = (path.name for path in target.iterdir() if path.name != "number")
    assert (target / "number").read_text() == other
