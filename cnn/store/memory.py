"""Remembers the digests of an artifact's files, so that verifying unchanged ones costs a stat."""

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cnn import files
from cnn.store import contents

_SETTLED = 2_000_000_000  # nanoseconds; a younger file may change again without a new time


class Memory:
    """The digests of one artifact's files: read from `path`, and kept there.

    A digest is believed while size, inode, and the times of the last change of content
    and of attributes are what they were. The memory costs only time when it is lost.
    """

    def __init__(self, path: Path) -> None:
        """Read what is remembered; a damaged memory is an empty one."""
        self._path = path
        self._known: dict[str, list[int | str]] = {}
        with suppress(OSError, ValueError):
            read = json.loads(path.read_bytes())
            self._known = read if isinstance(read, dict) else {}
        self._learned = False

    def file_digest(self, path: Path) -> str:
        """Return the SHA-256 of a file's bytes, from memory where the file is unchanged."""
        stat = path.stat()
        seen = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
        match self._known.get(path.name):
            case [*before, str(digest)] if before == seen:
                return digest
        digest = contents.file_digest(path)
        if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED:
            self._known[path.name] = [*seen, digest]
            self._learned = True
        return digest

    def keep(self, names: Iterable[str]) -> None:
        """Write what was learned of the named files; a store that is read-only forgets it."""
        if self._learned:
            known = {name: self._known[name] for name in names if name in self._known}
            with suppress(OSError):
                files.replace(self._path, json.dumps(known).encode())
