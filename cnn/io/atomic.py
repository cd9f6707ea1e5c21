"""Atomic writes through temporary files and folders, file locks, and full disks.

A file that is being written has a hidden temporary name ending in `.part`, beside its final
name, and the writing process holds a lock on it. The lock ends with the process, even if it is
killed, so `sweep` removes only what no process is writing any more.
"""

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cnn.errors import StoreUnwritableError

SUFFIX = ".part"
_DISK_ERRORS = {
    None,  # NumPy and HDF5 raise OSError without a number
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
    *(errno.ENOLCK, errno.EOPNOTSUPP),  # network file systems without locks
}


@contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """Yield a new, empty, locked file beside `target`; remove it after the block.

    A block that succeeds renames the file to keep it.
    """
    with _locked_new(target.parent, target.name, Path.touch) as path:
        try:
            yield path
        finally:
            with suppress(FileNotFoundError):
                path.unlink()


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new, empty, locked folder in `parent`; remove it after the block unless renamed."""
    with _locked_new(parent, name, Path.mkdir) as path:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `target` after the block, in one rename.

    An earlier folder at `target` is removed. If two processes write at once, the later one wins.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(target.parent, target.name) as temporary:
        new = temporary / "new"
        new.mkdir()
        yield new
        lock = target.parent / ".lock"
        with exclusive_lock(lock):
            if target.exists():
                target.rename(temporary / "earlier")
            new.rename(target)
            lock.unlink()


def replace(target: Path, content: bytes) -> None:
    """Replace a file atomically: a reader sees the old or the new content, even after a crash."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_file(target) as path:
        path.write_bytes(content)
        flush(path)
        path.replace(target)
    flush(target.parent)


def flush(path: Path) -> None:
    """Make a file's content, or a folder's entries, survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> list[Path]:
    """Remove temporary files and folders in `folder` that no process is writing; return them."""
    return [path for path in sorted(folder.glob(f".*{SUFFIX}")) if _removed(path)]


def abandoned(folder: Path) -> list[Path]:
    """Return the temporary files and folders in `folder` that the next sweep would remove."""
    return [path for path in sorted(folder.glob(f".*{SUFFIX}")) if not _is_written(path)]


def discard(path: Path, folder: Path) -> Path:
    """Rename a path to a temporary name in `folder`, for the next sweep to remove; return it.

    Since it is one rename, a reader finds the path whole or not at all, and if this process is
    killed before it sweeps, the next sweep removes the leftover.
    """
    return path.rename(_temporary_path(folder, path.name))


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file during the block; it ends with the process at the latest.

    The file is created if it does not exist; the holder of the lock may remove it.
    """
    with _holding(path, fcntl.LOCK_EX):
        yield


@contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """Hold a shared lock on a file during the block, after waiting for an exclusive one."""
    with _holding(path, fcntl.LOCK_SH):
        yield


@contextmanager
def disk_faults(what: str, folder: Path) -> Iterator[None]:
    """Turn the errors of a full, limited or read-only disk into StoreUnwritableError.

    The message says that `what` could not be written to `folder`, why, and how many bytes are
    free there.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        reason = error.strerror or f"only part of it was written ({error})"
        raise StoreUnwritableError(
            f"{what} could not be written to {folder}: {reason}; "
            f"{free_bytes(folder):,} bytes are free there"
        ) from error


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or would be on."""
    for path in (folder, *folder.parents):
        with suppress(OSError):  # does not exist yet, or may not be read
            return shutil.disk_usage(path).free
    return 0


@contextmanager
def _locked_new(parent: Path, name: str, create: Callable[[Path], None]) -> Iterator[Path]:
    """Create a new path and hold its lock during the block."""
    path, handle = _new(parent, name, create)
    try:
        yield path
    finally:
        os.close(handle)


def _new(parent: Path, name: str, create: Callable[[Path], None]) -> tuple[Path, int]:
    """Return a new path and its locked handle; retry if a sweep removes the path first."""
    while True:
        path = _temporary_path(parent, name)
        create(path)
        with suppress(FileNotFoundError):
            handle = _locked(path)
            if _names(path, handle):
                return path, handle
            os.close(handle)


def _temporary_path(parent: Path, name: str) -> Path:
    return parent / f".{name}.{uuid.uuid4().hex}{SUFFIX}"


def _is_written(path: Path) -> bool:
    """Return whether a process holds the lock of a temporary path; true if it cannot be opened."""
    try:
        os.close(_locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB))
    except OSError:
        return True
    return False


@contextmanager
def _holding(path: Path, how: int) -> Iterator[None]:
    """Hold a file's lock during the block."""
    handle = _locked_current(path, how)
    try:
        yield
    finally:
        os.close(handle)


def _locked_current(path: Path, how: int) -> int:
    """Return a handle that holds the lock of the file that now has this path."""
    while True:
        _make_folder(path.parent)
        with suppress(FileNotFoundError):
            handle = _locked(path, how, os.O_CREAT | os.O_RDWR)
            if _names(path, handle):
                return handle
            os.close(handle)


def _make_folder(folder: Path) -> None:
    """Create a folder; try repeatedly, since other processes may be removing it."""
    for _ in range(20):
        with suppress(FileExistsError, FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
    folder.mkdir(parents=True, exist_ok=True)


def _removed(path: Path) -> bool:
    try:
        handle = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # being written, already gone, or not ours to remove
        return False
    try:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(handle)
    return not path.exists()


def _locked(path: Path, how: int = fcntl.LOCK_EX, flags: int = os.O_RDONLY) -> int:
    """Return a handle that holds the path's lock until it is closed."""
    handle = os.open(path, flags | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(handle, how)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _names(path: Path, handle: int) -> bool:
    """Return whether the path still names the file that the handle has open."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
