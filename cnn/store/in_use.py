"""What the runs under way use, so that nothing of it is freed beneath them.

A run lists each artifact before it looks for it. The list is a temporary file that the
run keeps locked, so that it counts while the run lasts, however that ends. Whoever frees
artifacts reads the lists and takes the artifacts away while no list can grow.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cnn.io import atomic
from cnn.store.keys import Key

_LIST_NAME, _LOCK_NAME = "in-use", ".lock"


class UsageList:
    """The list of one run; safe to use from several threads."""

    def __init__(self, root: Path, path: Path) -> None:
        """Name the store's root and the list's file."""
        self._root, self._path = root, path

    def add(self, key: Key) -> None:
        """List the artifact of a key, made already or not; raises StoreUnwritableError.

        Where the run failed and a step of it still goes on, nothing is listed any more.
        """
        line = f"{key.kind} {key.digest}\n".encode("ascii")
        with (
            atomic.disk_faults("the list of what this run uses", self._root),
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
    """Yield a new list that counts while the block runs; raises StoreUnwritableError."""
    with ExitStack() as stack:
        with atomic.disk_faults("the list of what this run uses", root):
            root.mkdir(parents=True, exist_ok=True)
            path = stack.enter_context(atomic.temporary_file(root / _LIST_NAME))
        yield UsageList(root, path)


@contextmanager
def shared_lock(root: Path) -> Iterator[None]:
    """Hold the lock that lets lists and pins be added: shared, and never held for long."""
    with atomic.shared_lock(root / _LOCK_NAME):
        yield


@contextmanager
def exclusive_lock(root: Path) -> Iterator[None]:
    """Hold the lock under which no list grows and no run is pinned."""
    with atomic.exclusive_lock(root / _LOCK_NAME):
        yield


def read(root: Path) -> set[tuple[str, str]]:
    """Return kind and key of every artifact that a run under way has listed."""
    lists = {*root.glob(f".{_LIST_NAME}.*{atomic.SUFFIX}")} - {*atomic.abandoned(root)}
    lines = [line for path in lists for line in _lines(path)]
    return {(kind, key) for kind, _, key in (line.partition(" ") for line in lines)}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:  # its run has just ended
        return []
