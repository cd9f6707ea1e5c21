"""Temporary files that end with their process, whole replacement, and disks that are full."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cnn import files
from cnn.errors import StoreUnwritableError

ROOT = Path(__file__).parents[2]


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
from cnn import files
with files.temporary_file(Path(sys.argv[1]) / "a.bin") as path:
    path.write_bytes(b"half")
    with files.temporary_folder(Path(sys.argv[1]), "b") as folder:
        (folder / "inside").mkdir()
        (folder / "inside" / "x").write_text("half")
        print("ready", flush=True)
        time.sleep(60)
"""


def make_file(folder: Path) -> Path:
    with files.temporary_file(folder / "x.bin") as path:
        path.write_bytes(b"content")
        return path


def make_folder(folder: Path) -> Path:
    with files.temporary_folder(folder, "x") as path:
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
    assert path.suffix == files.SUFFIX == ".part"
    assert hidden(tmp_path) == []


def test_what_was_renamed_stays(tmp_path: Path) -> None:
    """A file or a folder that got its final name is no longer temporary."""
    with files.temporary_file(tmp_path / "x.bin") as path:
        path.write_bytes(b"content")
        path.rename(tmp_path / "x.bin")
    with files.temporary_folder(tmp_path, "y") as path:
        (path / "inside").write_text("content")
        path.rename(tmp_path / "y")
    assert (tmp_path / "x.bin").read_bytes() == b"content"
    assert (tmp_path / "y" / "inside").read_text() == "content"
    assert files.sweep(tmp_path) == []


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The error goes on as it is."""

    def fail(context: Callable[[], object]) -> None:
        with context() as path:  # type: ignore[attr-defined]
            if path.is_dir():
                (path / "half").touch()
            raise KeyError("x")

    for context in (
        lambda: files.temporary_file(tmp_path / "x"),
        lambda: files.temporary_folder(tmp_path, "x"),
    ):
        with pytest.raises(KeyError):
            fail(context)
    assert hidden(tmp_path) == []


def test_a_sweep_leaves_what_is_being_written(tmp_path: Path) -> None:
    """In this process and in another one, for a file and for a folder."""
    with process(HOLDER, tmp_path), files.temporary_file(tmp_path / "mine") as mine:
        before = hidden(tmp_path)
        assert len(before) == 3
        assert files.sweep(tmp_path) == []
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
        assert sorted(path.name for path in files.sweep(tmp_path)) == left
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
        assert len(files.sweep(tmp_path)) == 2
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_where_there_is_nothing_nothing_is_swept(tmp_path: Path) -> None:
    """A folder that does not exist yet is no error."""
    assert files.sweep(tmp_path / "none") == []
    assert files.sweep(tmp_path) == []


def test_a_sweep_follows_no_link(tmp_path: Path) -> None:
    """What a link of that name points to is somebody else's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("content")
    (tmp_path / ".x.part").symlink_to(outside)
    (tmp_path / ".y.part").symlink_to(outside / "precious")
    assert files.sweep(tmp_path) == []
    assert (outside / "precious").read_text() == "content"


WORKER = """
import sys, time
from pathlib import Path
from cnn import files
folder, me, end = Path(sys.argv[1]), sys.argv[2], time.monotonic() + 3
print("ready", flush=True)
n = 0
while time.monotonic() < end:
    n += 1
    with files.temporary_file(folder / f"{me}.bin") as path:
        path.write_bytes(me.encode() * 1000)
        assert path.read_bytes() == me.encode() * 1000
        path.replace(folder / f"{me}.bin")
    with files.temporary_folder(folder, me) as path:
        (path / "a").write_text(me)
        (path / "b").write_text(me)
        assert sorted(item.name for item in path.iterdir()) == ["a", "b"]
    files.sweep(folder)
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
    locked, taken = files._locked, []

    def slow(path: Path, *how: int) -> int:
        if not taken:
            taken.append(path)
            path.unlink()
        return locked(path, *how)

    monkeypatch.setattr(files, "_locked", slow)
    with files.temporary_file(tmp_path / "x") as path:
        assert path.exists()
        assert path != taken[0]


def test_a_new_file_that_was_replaced_before_its_lock_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of a file that has no name any more protects nothing."""
    locked, taken = files._locked, []

    def stolen(path: Path, *how: int) -> int:
        handle = locked(path, *how)
        if not taken:
            taken.append(path)
            path.unlink()
            path.touch()
        return handle

    monkeypatch.setattr(files, "_locked", stolen)
    with files.temporary_file(tmp_path / "x") as path:
        assert path != taken[0]


def test_a_replaced_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    """A reader that looks all the time never sees a third content, nor none."""
    target = tmp_path / "below" / "record.json"
    contents = [bytes([65 + i]) * 200_000 for i in range(2)]
    files.replace(target, contents[0])
    over, seen = threading.Event(), set()

    def look() -> None:
        while not over.is_set():
            seen.add(target.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    for i in range(60):
        files.replace(target, contents[i % 2])
    over.set()
    reader.join()
    assert seen == set(contents)
    assert hidden(target.parent) == []


def test_a_file_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk costs the new content, not the old one."""
    target = tmp_path / "record.json"
    files.replace(target, b"old")

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        files.replace(target, b"new")
    assert target.read_bytes() == b"old"
    assert hidden(tmp_path) == []


def test_replacing_a_link_leaves_what_it_pointed_to(tmp_path: Path) -> None:
    """Nothing outside is written through a link."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "link").symlink_to(outside)
    files.replace(tmp_path / "link", b"new")
    assert outside.read_text() == "precious"
    assert not (tmp_path / "link").is_symlink()


DISK_ERRORS = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "EACCES", "EPERM", "ENOTDIR")


@pytest.mark.parametrize("name", DISK_ERRORS)
def test_a_fault_of_the_disk_names_what_where_and_how_much_is_free(
    tmp_path: Path, name: str
) -> None:
    """The command ends with 2, and a person knows which disk to look at."""
    number = getattr(errno, name)
    with (
        pytest.raises(StoreUnwritableError) as caught,
        files.disk_faults("the model", tmp_path / "a" / "b"),
    ):
        raise OSError(number, os.strerror(number))
    message = str(caught.value)
    assert f"the model could not be written to {tmp_path}/a/b: {os.strerror(number)}" in message
    n_free = int(message.split("; ")[1].split(" bytes are free", maxsplit=1)[0].replace(",", ""))
    assert n_free > 0
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "gone"), ValueError("x"), KeyboardInterrupt()]
)
def test_what_is_no_fault_of_the_disk_goes_on(tmp_path: Path, error: BaseException) -> None:
    """A slip of ours is not said to be a full disk."""
    with pytest.raises(type(error)), files.disk_faults("the model", tmp_path):
        raise error


def test_an_error_without_a_number_says_its_text(tmp_path: Path) -> None:
    """NumPy and HDF5 say how many bytes they could not write, and no number."""
    with (
        pytest.raises(StoreUnwritableError, match="40 requested and 0 written"),
        files.disk_faults("the model", tmp_path),
    ):
        raise OSError("40 requested and 0 written")


@contextmanager
def small_disk(folder: Path, options: str = "size=1m") -> Iterator[Path]:
    """Yield a folder that is a disk of its own; skipped where mounting is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full_is_said_as_such(tmp_path: Path) -> None:
    """What was half written is gone, and what was there is as it was."""
    with small_disk(tmp_path / "disk") as disk:
        files.replace(disk / "record", b"old")
        with (
            pytest.raises(StoreUnwritableError, match=r"No space left.*; [\d,]+ bytes are free"),
            files.disk_faults("the record", disk),
        ):
            files.replace(disk / "record", bytes(1 << 20))
        assert (disk / "record").read_bytes() == b"old"
        assert hidden(disk) == []
        files.replace(disk / "record", b"new")
        assert (disk / "record").read_bytes() == b"new"


def test_a_disk_that_is_read_only_is_said_as_such(tmp_path: Path) -> None:
    """A sweep there removes nothing and is no error."""
    with small_disk(tmp_path / "disk") as disk:
        (disk / ".left.part").touch()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with (
            pytest.raises(StoreUnwritableError, match="Read-only file system"),
            files.disk_faults("the record", disk),
        ):
            files.replace(disk / "record", b"new")
        assert files.sweep(disk) == []
        assert (disk / ".left.part").exists()


LIMITED = """
import resource, signal, sys
from pathlib import Path
from cnn import files
from cnn.errors import StoreUnwritableError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder = Path(sys.argv[1])
try:
    with files.disk_faults("the record", folder):
        files.replace(folder / "record", bytes(5000))
except StoreUnwritableError as error:
    print(error)
print(sorted(path.name for path in folder.iterdir()))
"""


def test_a_limit_on_file_sizes_is_said_as_such(tmp_path: Path) -> None:
    """A quota of that kind kills neither the process nor the old content."""
    files.replace(tmp_path / "record", b"old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    message, left = done.stdout.splitlines()
    assert f"the record could not be written to {tmp_path}: File too large" in message
    assert left == "['record']"
    assert (tmp_path / "record").read_bytes() == b"old"


FORBIDDEN = """
import os, sys
from pathlib import Path
from cnn import files
from cnn.errors import StoreUnwritableError
if os.getuid() == 0:
    os.setuid(65534)
folder = Path(sys.argv[1])
try:
    with files.disk_faults("the record", folder):
        files.replace(folder / "record", b"new")
except StoreUnwritableError as error:
    print(error.exit_code, "Permission denied" in str(error), "bytes are free" in str(error))
if len(sys.argv) > 2:
    print(files.sweep(folder))
"""


def forbidden(*words: object) -> list[str]:
    """Return what is printed where another user's folder is to be written."""
    command = [sys.executable, "-c", FORBIDDEN, *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.splitlines()


def test_a_folder_that_may_not_be_written_is_said_as_such() -> None:
    """Another user's folder: no temporary file, no sweep, no traceback."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / ".left.part").touch()
        folder.chmod(0o555)
        assert forbidden(folder, "sweep") == ["2 True True", "[]"]
        assert hidden(folder) == [".left.part"]
        folder.chmod(0o700)


def test_a_folder_that_may_not_be_looked_into_is_said_as_such() -> None:
    """Where the folder itself cannot be asked, the disk above it tells what is free."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o600)
        assert forbidden(Path(name) / "below") == ["2 True True"]
        Path(name).chmod(0o700)


def test_free_bytes_are_those_of_the_disk_that_the_folder_would_be_on(tmp_path: Path) -> None:
    """A folder that is not there yet counts too."""
    with small_disk(tmp_path / "disk") as disk:
        assert files.free_bytes(disk / "a" / "b") <= 1 << 20
        before = files.free_bytes(disk)
        (disk / "x").write_bytes(bytes(500_000))
        assert before - files.free_bytes(disk) >= 500_000


def test_many_leftovers_are_swept_soon(tmp_path: Path) -> None:
    """A thousand killed downloads do not delay a start."""
    for i in range(1000):
        (tmp_path / f".x.{i}.part").touch()
    started = time.monotonic()
    assert len(files.sweep(tmp_path)) == 1000
    assert time.monotonic() - started < 2
