"""Disks that are full, limited, read-only or somebody else's are said as such."""

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cnn.errors import StoreUnwritableError
from cnn.io import atomic
from tests.cnn.io.test_atomic import ROOT, hidden

DISK_ERRORS = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "EACCES", "EPERM", "ENOTDIR")


@pytest.mark.parametrize("name", DISK_ERRORS)
def test_a_fault_of_the_disk_names_what_where_and_how_much_is_free(
    tmp_path: Path, name: str
) -> None:
    """The command ends with 2, and a person knows which disk to look at."""
    number = getattr(errno, name)
    with (
        pytest.raises(StoreUnwritableError) as caught,
        atomic.disk_faults("the model", tmp_path / "a" / "b"),
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
    with pytest.raises(type(error)), atomic.disk_faults("the model", tmp_path):
        raise error


def test_an_error_without_a_number_says_its_text(tmp_path: Path) -> None:
    """NumPy and HDF5 say how many bytes they could not write, and no number."""
    with (
        pytest.raises(StoreUnwritableError, match="40 requested and 0 written"),
        atomic.disk_faults("the model", tmp_path),
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
        atomic.replace(disk / "record", b"old")
        with (
            pytest.raises(StoreUnwritableError, match=r"No space left.*; [\d,]+ bytes are free"),
            atomic.disk_faults("the record", disk),
        ):
            atomic.replace(disk / "record", bytes(1 << 20))
        assert (disk / "record").read_bytes() == b"old"
        assert hidden(disk) == []
        atomic.replace(disk / "record", b"new")
        assert (disk / "record").read_bytes() == b"new"


def test_a_disk_that_is_read_only_is_said_as_such(tmp_path: Path) -> None:
    """A sweep there removes nothing and is no error."""
    with small_disk(tmp_path / "disk") as disk:
        (disk / ".left.part").touch()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with (
            pytest.raises(StoreUnwritableError, match="Read-only file system"),
            atomic.disk_faults("the record", disk),
        ):
            atomic.replace(disk / "record", b"new")
        assert atomic.sweep(disk) == []
        assert (disk / ".left.part").exists()


LIMITED = """
import resource, signal, sys
from pathlib import Path
from cnn.io import atomic
from cnn.errors import StoreUnwritableError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder = Path(sys.argv[1])
try:
    with atomic.disk_faults("the record", folder):
        atomic.replace(folder / "record", bytes(5000))
except StoreUnwritableError as error:
    print(error)
print(sorted(path.name for path in folder.iterdir()))
"""


def test_a_limit_on_file_sizes_is_said_as_such(tmp_path: Path) -> None:
    """A quota of that kind kills neither the process nor the old content."""
    atomic.replace(tmp_path / "record", b"old")
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
from cnn.io import atomic
from cnn.errors import StoreUnwritableError
if os.getuid() == 0:
    os.setuid(65534)
folder = Path(sys.argv[1])
try:
    with atomic.disk_faults("the record", folder):
        atomic.replace(folder / "record", b"new")
except StoreUnwritableError as error:
    print(error.exit_code, "Permission denied" in str(error), "bytes are free" in str(error))
if len(sys.argv) > 2:
    print(atomic.sweep(folder))
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
        assert atomic.free_bytes(disk / "a" / "b") <= 1 << 20
        before = atomic.free_bytes(disk)
        (disk / "x").write_bytes(bytes(500_000))
        assert before - atomic.free_bytes(disk) >= 500_000
