"""Which artifacts current runs use, so that garbage collection keeps them.

A run adds an artifact to its list before it looks the artifact up. The list is a temporary
file that the run keeps locked, so it counts until the run ends, even if the run is killed.
Garbage collection reads the lists and removes artifacts under an exclusive lock, so no list
can grow in between.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cnn.io import atomic
from cnn.store.keys import Key

_LIST_NAME, _LOCK_NAME = "in-use", ".lock"


class UsageList:
    """The list of the artifacts that one run uses; thread-safe."""

    def __init__(self, root: Path, path: Path) -> None:
        """Set the store's root and the path of the list."""
        self._root, self._path = root, path

    def add(self, key: Key) -> None:
        """Add the artifact of a key, whether it exists yet or not; raises StoreUnwritableError.

        Do nothing if the list is gone: the run has failed while one of its steps still works.
        """
        line = f"{key.kind} {key.digest}\n".encode("ascii")
        with (
            atomic.disk_faults("the list of artifacts in use", self._root),
            shared_lock(self._root),
            suppress(FileNotFoundError),
        ):
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(handle, line)
            finally:
                os.close(handle)


@contextmanager
def listed(root: Path) -> Iterator[UsageList]:
    """Yield a new list that counts during the block; raises StoreUnwritableError."""
    with ExitStack() as stack:
        with atomic.disk_faults("the list of artifacts in use", root):
            root.mkdir(parents=True, exist_ok=True)
            path = stack.enter_context(atomic.temporary_file(root / _LIST_NAME))
        yield UsageList(root, path)


@contextmanager
def shared_lock(root: Path) -> Iterator[None]:
    """Hold the shared lock for adding to a list or pinning a run; hold it only briefly."""
    with atomic.shared_lock(root / _LOCK_NAME):
        yield


@contextmanager
def exclusive_lock(root: Path) -> Iterator[None]:
    """Hold the lock that keeps lists from growing and runs from being pinned."""
    with atomic.exclusive_lock(root / _LOCK_NAME):
        yield


def read(root: Path) -> set[tuple[str, str]]:
    """Return the kind and key of every artifact that a current run has listed."""
    lists = {*root.glob(f".{_LIST_NAME}.*{atomic.SUFFIX}")} - {*atomic.abandoned(root)}
    lines = [line for path in lists for line in _lines(path)]
    return {(kind, key) for kind, _, key in (line.partition(" ") for line in lines)}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:  # its run has just ended
        return []
