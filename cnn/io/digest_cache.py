"""A cache of file digests, so that verifying an unchanged file costs only a stat call."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cnn.io import atomic

_SETTLED = 2_000_000_000  # nanoseconds; a younger file may change again within one clock tick


class DigestCache:
    """File digests by name, kept in a JSON file.

    A digest is reused while the file's size, inode, mtime and ctime are unchanged. Losing the
    cache costs only time.
    """

    def __init__(self, path: Path) -> None:
        """Read the cache; a damaged one counts as empty."""
        self._path = path
        self._known: dict[str, list[int | str]] = {}
        with suppress(OSError, ValueError, RecursionError):
            stored = json.loads(path.read_bytes())
            self._known = stored if isinstance(stored, dict) else {}
        self._requested: set[str] = set()
        self._changed = False

    def digest(self, path: Path, name: str, compute: Callable[[Path], str]) -> str:
        """Return the digest of the file cached under `name`; compute it if the file has changed."""
        stat = path.stat()
        seen = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
        self._requested.add(name)
        match self._known.get(name):
            case [*before, str(digest)] if before == seen:
                return digest
        settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED
        digest = compute(path)
        if settled:
            self._known[name] = [*seen, digest]
            self._changed = True
        return digest

    def keep(self) -> None:
        """Write the cache, limited to the names requested since it was read.

        Do nothing if the disk is read-only or the folder's parent does not exist.
        """
        if self._changed:
            known = {name: self._known[name] for name in self._requested if name in self._known}
            with suppress(OSError):
                self._path.parent.mkdir(exist_ok=True)
                atomic.replace(self._path, json.dumps(known).encode())
