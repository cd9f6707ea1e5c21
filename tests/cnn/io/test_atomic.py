"""Temporary files that end with their process, and files that are replaced whole."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from cnn.io import atomic
from tests import ROOT


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@contextmanager
def process(code: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """Run code in a process of its own until the block ends; it says "ready" when it is."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as started:
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


def make_file(folder: Path) -> Path:
    with atomic.temporary_file(folder / "x.bin") as path:
        path.write_bytes(b"content")
        return path


def make_folder(folder: Path) -> Path:
    with atomic.temporary_folder(folder, "x") as path:
        (path / "inside").write_text("content")
        return path


@pytest.mark.parametrize("make", [make_file, make_folder])
def test_what_was_temporary_is_gone_after_the_block(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    """Its name was hidden and ended in .part, so that no reader's glob met it."""
    path = make(tmp_path)
    assert path.parent == tmp_path
    assert path.name.startswith(".x")
    assert path.suffix == atomic.SUFFIX == ".part"
    assert hidden(tmp_path) == []


def test_what_was_renamed_stays(tmp_path: Path) -> None:
    """A file or a folder that got its final name is no longer temporary."""
    with atomic.temporary_file(tmp_path / "x.bin") as path:
        path.write_bytes(b"content")
        path.rename(tmp_path / "x.bin")
    with atomic.temporary_folder(tmp_path, "y") as path:
        (path / "inside").write_text("content")
        path.rename(tmp_path / "y")
    assert (tmp_path / "x.bin").read_bytes() == b"content"
    assert (tmp_path / "y" / "inside").read_text() == "content"
    assert atomic.sweep(tmp_path) == []


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The error goes on as it is."""

    def fail(context: Callable[[], object]) -> None:
        with context() as path:  # type: ignore[attr-defined]
            if path.is_dir():
                (path / "half").touch()
            raise KeyError("x")

    for context in (
        lambda: atomic.temporary_file(tmp_path / "x"),
        lambda: atomic.temporary_folder(tmp_path, "x"),
    ):
        with pytest.raises(KeyError):
            fail(context)
    assert hidden(tmp_path) == []


def test_a_sweep_leaves_what_is_being_written(tmp_path: Path) -> None:
    """In this process and in another one, for a file and for a folder."""
    with process(HOLDER, tmp_path), atomic.temporary_file(tmp_path / "mine") as mine:
        before = hidden(tmp_path)
        assert len(before) == 3
        assert atomic.sweep(tmp_path) == []
        assert hidden(tmp_path) == before
        assert mine.exists()


def test_a_sweep_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    """SIGKILL cannot be cleaned up after; the next sweep does it, and says what it removed."""
    (tmp_path / "kept.part").touch()
    (tmp_path / ".kept").touch()
    with process(HOLDER, tmp_path) as started:
        started.send_signal(signal.SIGKILL)
        started.wait(10)
        left = [name for name in hidden(tmp_path) if name != ".kept"]
        assert len(left) == 2
        assert sorted(path.name for path in atomic.sweep(tmp_path)) == left
    assert sorted(path.name for path in tmp_path.iterdir()) == [".kept", "kept.part"]


def test_a_child_that_lives_on_does_not_keep_what_its_parent_wrote(tmp_path: Path) -> None:
    """A server that was started in between inherits no lock."""
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


def test_where_there_is_nothing_nothing_is_swept(tmp_path: Path) -> None:
    """A folder that does not exist yet is no error."""
    assert atomic.sweep(tmp_path / "none") == []
    assert atomic.sweep(tmp_path) == []


def test_a_sweep_follows_no_link(tmp_path: Path) -> None:
    """What a link of that name points to is somebody else's."""
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
def test_sweeps_and_makers_race_without_a_loss(tmp_path: Path) -> None:
    """Several processes make, rename and sweep at once: nobody loses what it is writing."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(i)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for i in range(6)
    ]
    for i, item in enumerate(started):
        output, errors = item.communicate(timeout=60)
        assert (item.returncode, errors) == (0, "")
        assert int(output.split()[1]) > 10
        assert (tmp_path / f"{i}.bin").read_bytes() == str(i).encode() * 1000
    assert hidden(tmp_path) == []


def test_a_new_file_that_a_sweep_took_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making and locking a sweep may come; whoever makes then begins anew."""
    locked, taken = atomic._locked, []

    def slow(path: Path, *how: int) -> int:
        if not taken:
            taken.append(path)
            path.unlink()
        return locked(path, *how)

    monkeypatch.setattr(atomic, "_locked", slow)
    with atomic.temporary_file(tmp_path / "x") as path:
        assert path.exists()
        assert path != taken[0]


def test_a_new_file_that_was_replaced_before_its_lock_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of a file that has no name any more protects nothing."""
    locked, taken = atomic._locked, []

    def stolen(path: Path, *how: int) -> int:
        handle = locked(path, *how)
        if not taken:
            taken.append(path)
            path.unlink()
            path.touch()
        return handle

    monkeypatch.setattr(atomic, "_locked", stolen)
    with atomic.temporary_file(tmp_path / "x") as path:
        assert path != taken[0]


def test_a_replaced_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    """A reader that looks all the time never sees a third content, nor none."""
    target = tmp_path / "below" / "record.json"
    contents = [bytes([65 + i]) * 200_000 for i in range(2)]
    atomic.replace(target, contents[0])
    over, seen = threading.Event(), set()

    def look() -> None:
        while not over.is_set():
            seen.add(target.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    for i in range(60):
        atomic.replace(target, contents[i % 2])
    over.set()
    reader.join()
    assert seen == set(contents)
    assert hidden(target.parent) == []


def test_a_file_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk costs the new content, not the old one."""
    target = tmp_path / "record.json"
    atomic.replace(target, b"old")

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        atomic.replace(target, b"new")
    assert target.read_bytes() == b"old"
    assert hidden(tmp_path) == []


def test_replacing_a_link_leaves_what_it_pointed_to(tmp_path: Path) -> None:
    """Nothing outside is written through a link."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "link").symlink_to(outside)
    atomic.replace(tmp_path / "link", b"new")
    assert outside.read_text() == "precious"
    assert not (tmp_path / "link").is_symlink()


def test_many_leftovers_are_swept_soon(tmp_path: Path) -> None:
    """A thousand killed downloads do not delay a start."""
    for i in range(1000):
        (tmp_path / f".x.{i}.part").touch()
    started = time.monotonic()
    assert len(atomic.sweep(tmp_path)) == 1000
    assert time.monotonic() - started < 2


def test_a_folder_takes_the_place_of_one_of_before(tmp_path: Path) -> None:
    """Complete, and nothing of the one of before is left in it or beside it."""
    target = tmp_path / "many" / "folder"
    for name in ("one", "two"):
        with atomic.replacing_folder(target) as made:
            (made / name).touch()
            assert not (target / name).exists()
    assert [path.name for path in target.iterdir()] == ["two"]
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


def test_a_folder_that_was_not_completed_leaves_the_one_of_before(tmp_path: Path) -> None:
    """Whatever ended the block."""
    target = tmp_path / "folder"
    with atomic.replacing_folder(target) as made:
        (made / "one").touch()
    with pytest.raises(ZeroDivisionError), atomic.replacing_folder(target) as made:
        (made / "two").touch()
        raise ZeroDivisionError
    assert [path.name for path in target.iterdir()] == ["one"]


def test_of_two_writers_of_a_folder_each_puts_a_whole_one(tmp_path: Path) -> None:
    """Sixteen at once, four times each."""
    target = tmp_path / "folder"

    def write(number: int) -> None:
        for _ in range(4):
            with atomic.replacing_folder(target) as made:
                (made / str(number)).touch()
                (made / "too").write_text(str(number))

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(write, range(16)))
    (other,) = (path.name for path in target.iterdir() if path.name != "too")
    assert (target / "too").read_text() == other
