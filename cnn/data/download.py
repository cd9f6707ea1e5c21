"""Fetches files from several addresses into one folder, and keeps only what was verified.

Several processes may do so at once: one fetches, the others wait for it. The lock is the
kernel's, on the folder itself: it ends with its process, however that ends, and leaves nothing.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from cnn.data import idx, transfer
from cnn.data.transfer import Deadline, Wanted
from cnn.errors import DataError, UnreachableError
from cnn.io import atomic

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1


def fetch(
    wanted: Mapping[str, Wanted], addresses: Sequence[str], folder: Path, deadline: Deadline
) -> dict[str, Path]:
    """Return the path of every file by name, fetched where no verified one lies in the folder.

    addresses: folders on the web, tried in turn. Raises UnreachableError listing every
    address with what it answered, StoreUnwritableError where the disk fails.
    """
    with atomic.disk_faults("a download", folder):
        folder.mkdir(parents=True, exist_ok=True)
        atomic.sweep(folder)
        missing = [name for name in wanted if problem(folder / name, wanted[name])]
        if missing:
            with _alone(folder, Deadline.after(deadline.left / 2)), transfer.client() as client:
                for name in missing:
                    _complete(client, folder / name, wanted[name], addresses, deadline)
    return {name: folder / name for name in wanted}


def problem(path: Path, wanted: Wanted) -> str:
    """Return why a file cannot be used, or "" where it is there and verified."""
    if not path.exists():
        return f"{path}: there is no such file"
    try:
        wanted.verify(path)
    except DataError as error:
        return str(error)
    return ""


def verify(path: Path, digest: str) -> str:
    """Return the SHA-256 of a file's unpacked bytes; raises DataError unless it is `digest`."""
    found = idx.digest(path)
    if found != digest:
        raise DataError(
            f"{path}: wrong checksum: SHA-256 of the unpacked bytes is {found}, expected {digest}"
        )
    return found


@contextmanager
def _alone(folder: Path, limit: Deadline) -> Iterator[None]:
    """Hold the folder's lock, or go on without it where it is not to be had within the limit."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if _is_taken(handle):
            log.info("another process fetches into %s; waiting for it", folder)
            while limit.left and _is_taken(handle):
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(handle)


def _is_taken(handle: int) -> bool:
    """Return whether another process has the lock; if not, it is ours, where locks can be had."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _complete(
    client: httpx.Client,
    path: Path,
    wanted: Wanted,
    addresses: Sequence[str],
    deadline: Deadline,
) -> None:
    """Fetch one file, unless another process did so meanwhile; a bad one is set aside first."""
    fault = problem(path, wanted)
    if not fault:
        return
    with (
        suppress(FileNotFoundError),  # the usual case: there is none yet
        atomic.disk_faults(f"{fault}; its replacement", path.parent),
    ):
        path.replace(_aside(path))
        log.warning("%s; it is set aside and fetched again", fault)
    answers = []
    for i, address in enumerate(addresses):
        url = address + path.name
        # A server that drips must leave time for the others.
        limit = Deadline.after(deadline.left / (len(addresses) - i))
        try:
            transfer.transfer(client, url, wanted, path, limit)
        except transfer.ERRORS as error:
            answers.append(f"  {url}: {transfer.reason(error)}")
            continue
        log.info("fetched %s from %s", path.name, address)
        return
    raise _unreachable(path, wanted, answers)


def _unreachable(path: Path, wanted: Wanted, answers: Sequence[str]) -> UnreachableError:
    lines = [f"{path.name} could not be fetched from any of {len(answers)} addresses:", *answers]
    if _aside(path).exists():
        lines.append(f"An earlier file was set aside. {problem(_aside(path), wanted)}")
    lines.append(
        "Check the network, or put the files into a folder and use "
        "--data.source folder --data.path FOLDER"
    )
    return UnreachableError("\n".join(lines))


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.bad")
