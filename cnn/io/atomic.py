"""Temporary files and folders, and disks that are full.

Whatever is being written has a hidden name that ends in `.part`, beside its final name,
and is locked by the process that writes it. The lock ends with the process, however that
ends, so that `sweep` removes what nobody writes any more and nothing else.
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
    None,  # NumPy and HDF5 say what failed, without a number
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
    *(errno.ENOLCK, errno.EOPNOTSUPP),  # a network's disk without locks
}


@contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """Yield a new, empty, locked file beside `target`; it is gone after the block if still there.

    The block writes to it and renames it, after which it is no longer temporary.
    """
    with _locked_new(target.parent, target.name, Path.touch) as path:
        try:
            yield path
        finally:
            with suppress(FileNotFoundError):
                path.unlink()


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new, empty, locked folder in `parent`; it is gone after the block if still there."""
    with _locked_new(parent, name, Path.mkdir) as path:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the target's place after the block, complete.

    One of before goes; of two writers at once the later one's stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(target.parent, target.name) as temporary:
        made = temporary / "made"
        made.mkdir()
        yield made
        lock = target.parent / ".lock"
        with exclusive_lock(lock):
            if target.exists():
                target.rename(temporary / "earlier")
            made.rename(target)
            lock.unlink()


def replace(target: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, after a crash too."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_file(target) as path:
        path.write_bytes(content)
        flush(path)
        path.replace(target)
    flush(target.parent)


def flush(path: Path) -> None:
    """Make a file's content, or a folder's names, survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> list[Path]:
    """Remove the temporary files and folders in `folder` that no process writes; return them."""
    return [path for path in sorted(folder.glob(f".*{SUFFIX}")) if _removed(path)]


def abandoned(folder: Path) -> list[Path]:
    """Return the temporary files and folders in `folder` that the next sweep would remove."""
    return [path for path in sorted(folder.glob(f".*{SUFFIX}")) if not _is_written(path)]


def discard(path: Path, folder: Path) -> Path:
    """Return the temporary name, in `folder`, given to a path for the next sweep to remove.

    That is one rename: a reader finds the path whole or not at all, and a process that is
    killed before it swept leaves nothing that looks like more than a leftover.
    """
    return path.rename(_temporary_path(folder, path.name))


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file during the block; it ends with the process at the latest.

    The file is made if need be, and may be removed by whoever holds the lock.
    """
    with _holding(path, fcntl.LOCK_EX):
        yield


@contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """Hold a lock on a file that others may share, and that waits for an exclusive one."""
    with _holding(path, fcntl.LOCK_SH):
        yield


@contextmanager
def disk_faults(what: str, folder: Path) -> Iterator[None]:
    """Turn a disk that is full, limited or read-only into StoreUnwritableError.

    `what` could not be written to `folder`; the message gives the free bytes there.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        reason = error.strerror or f"the disk took only a part ({error})"
        raise StoreUnwritableError(
            f"{what} could not be written to {folder}: {reason}; "
            f"{free_bytes(folder):,} bytes are free there"
        ) from error


def free_bytes(folder: Path) -> int:
    """Return the bytes that are free where a folder is, or would be."""
    for path in (folder, *folder.parents):
        with suppress(OSError):  # not there yet, or not ours to look into
            return shutil.disk_usage(path).free
    return 0


@contextmanager
def _locked_new(parent: Path, name: str, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make a new path and hold its lock while the block runs."""
    path, handle = _new(parent, name, make)
    try:
        yield path
    finally:
        os.close(handle)


def _new(parent: Path, name: str, make: Callable[[Path], None]) -> tuple[Path, int]:
    """Return a new path and its locked handle; one that a sweep was faster to take is left."""
    while True:
        path = _temporary_path(parent, name)
        make(path)
        with suppress(FileNotFoundError):
            handle = _locked(path)
            if _names(path, handle):
                return path, handle
            os.close(handle)


def _temporary_path(parent: Path, name: str) -> Path:
    return parent / f".{name}.{uuid.uuid4().hex}{SUFFIX}"


def _is_written(path: Path) -> bool:
    """Return whether some process holds the lock of a temporary path, or it is no such path."""
    try:
        os.close(_locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB))
    except OSError:
        return True
    return False


@contextmanager
def _holding(path: Path, how: int) -> Iterator[None]:
    """Hold a file's lock while the block runs."""
    handle = _locked_for_good(path, how)
    try:
        yield
    finally:
        os.close(handle)


def _locked_for_good(path: Path, how: int) -> int:
    """Return a handle that holds the lock of the file that the path names now."""
    while True:
        _make_folder(path.parent)
        with suppress(FileNotFoundError):
            handle = _locked(path, how, os.O_CREAT | os.O_RDWR)
            if _names(path, handle):
                return handle
            os.close(handle)


def _make_folder(folder: Path) -> None:
    """Make a folder that is not there; some tries, as others may be removing it meanwhile."""
    for _ in range(20):
        with suppress(FileExistsError, FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
    folder.mkdir(parents=True, exist_ok=True)


def _removed(path: Path) -> bool:
    try:
        handle = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody writes it, it is gone, or it is not ours to remove
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
