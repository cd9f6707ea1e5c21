"""Remembers the digests of files, so that looking at unchanged ones again costs a stat."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cnn.io import atomic

_SETTLED = 2_000_000_000  # nanoseconds; a younger file may change again without a new time


class DigestCache:
    """Digests of files by name: read from a JSON file, and kept there.

    A digest is believed while size, inode, and the times of the last change of content
    and of attributes are what they were. What is lost of the memory costs only time.
    """

    def __init__(self, path: Path) -> None:
        """Read what is remembered; a damaged memory is an empty one."""
        self._path = path
        self._known: dict[str, list[int | str]] = {}
        with suppress(OSError, ValueError, RecursionError):
            read = json.loads(path.read_bytes())
            self._known = read if isinstance(read, dict) else {}
        self._asked: set[str] = set()
        self._learned = False

    def digest(self, path: Path, name: str, compute: Callable[[Path], str]) -> str:
        """Return the digest of the file that goes by `name`, computed where it has changed."""
        stat = path.stat()
        seen = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
        self._asked.add(name)
        match self._known.get(name):
            case [*before, str(digest)] if before == seen:
                return digest
        settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED
        digest = compute(path)
        if settled:
            self._known[name] = [*seen, digest]
            self._learned = True
        return digest

    def keep(self) -> None:
        """Write what was learned of the names that were asked for.

        Where the disk is read-only, or the folder's parent is not there, it is forgotten.
        """
        if self._learned:
            known = {name: self._known[name] for name in self._asked if name in self._known}
            with suppress(OSError):
                self._path.parent.mkdir(exist_ok=True)
                atomic.replace(self._path, json.dumps(known).encode())
