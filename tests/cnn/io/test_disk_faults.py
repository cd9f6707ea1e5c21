"""Full, limited, read-only or forbidden disks end in StoreUnwritableError with the reason."""

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cnn.errors import StoreUnwritableError
from cnn.io import atomic
from tests import ROOT, commands
from tests.cnn.io.test_atomic import hidden

DISK_ERRORS = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "EACCES", "EPERM", "ENOTDIR")
FAULTS = [
    *(OSError(getattr(errno, name), os.strerror(getattr(errno, name))) for name in DISK_ERRORS),
    OSError("40 requested and 0 written"),  # as NumPy and HDF5 raise it, without a number
]


@pytest.mark.parametrize("error", FAULTS, ids=str)
def test_a_disk_fault_names_the_file_the_folder_and_the_free_bytes(
    tmp_path: Path, error: OSError
) -> None:
    """The command ends with 2, and the user knows which disk to check."""
    with (
        pytest.raises(StoreUnwritableError) as caught,
        atomic.disk_faults("the model", tmp_path / "a" / "b"),
    ):
        raise error
    message = str(caught.value)
    assert f"the model could not be written to {tmp_path}/a/b: " in message
    assert (error.strerror or str(error)) in message
    n_free = int(message.split("; ")[1].split(" bytes are free", maxsplit=1)[0].replace(",", ""))
    assert n_free > 0
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "gone"), ValueError("x"), KeyboardInterrupt()]
)
def test_other_errors_pass_through(tmp_path: Path, error: BaseException) -> None:
    """A bug in the code is not reported as a full disk."""
    with pytest.raises(type(error)), atomic.disk_faults("the model", tmp_path):
        raise error


@contextmanager
def small_disk(folder: Path, options: str = "size=1m") -> Iterator[Path]:
    """Yield a folder on a disk of its own; skip the test if mounting is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_write_to_a_full_disk_keeps_the_old_content(tmp_path: Path) -> None:
    """The half-written file is removed; once there is room, writing works again."""
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


def test_a_read_only_disk_is_reported(tmp_path: Path) -> None:
    """A sweep there removes nothing and is not an error."""
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


WRITE = """
import os, resource, signal, sys
from pathlib import Path
from cnn.io import atomic
from cnn.errors import StoreUnwritableError
folder, n_bytes, max_bytes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if max_bytes:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))
elif os.getuid() == 0:
    os.setuid(65534)
try:
    with atomic.disk_faults("the record", folder):
        atomic.replace(folder / "record", bytes(n_bytes))
except StoreUnwritableError as error:
    print(error.exit_code, error)
print(atomic.sweep(folder) if os.access(folder, os.R_OK) else [])
"""


def write_in_a_process(folder: Path, n_bytes: int = 5, max_bytes: int = 0) -> list[str]:
    """Write with a limit on file sizes, or else as another user; return the printed lines."""
    words = (str(folder), str(n_bytes), str(max_bytes))
    return commands.run_python(WRITE, *words, cwd=ROOT).stdout.splitlines()


def test_a_limit_on_file_sizes_is_reported(tmp_path: Path) -> None:
    """Such a limit kills neither the process nor the old content."""
    atomic.replace(tmp_path / "record", b"old")
    message, swept = write_in_a_process(tmp_path, n_bytes=5000, max_bytes=1000)
    assert f"the record could not be written to {tmp_path}: File too large" in message
    assert swept == "[]"
    assert [path.name for path in tmp_path.iterdir()] == ["record"]
    assert (tmp_path / "record").read_bytes() == b"old"


@pytest.mark.parametrize(("mode", "below"), [(0o555, "."), (0o600, "below")])
def test_a_folder_without_permission_is_reported(mode: int, below: str) -> None:
    """One that may not be written, or not even read: no temporary file, no sweep, no traceback."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / ".left.part").touch()
        folder.chmod(mode)
        message, swept = write_in_a_process(folder / below)
        assert message.startswith("2 the record could not be written")
        assert "Permission denied" in message
        assert "bytes are free" in message
        assert swept == "[]"
        folder.chmod(0o700)
        assert hidden(folder) == [".left.part"]


def test_free_bytes_are_those_of_the_disk_that_the_folder_would_be_on(tmp_path: Path) -> None:
    """The folder need not exist yet."""
    with small_disk(tmp_path / "disk") as disk:
        assert atomic.free_bytes(disk / "a" / "b") <= 1 << 20
        before = atomic.free_bytes(disk)
        (disk / "x").write_bytes(bytes(500_000))
        assert before - atomic.free_bytes(disk) >= 500_000
