"""Leases: one process at a time works in a folder; the others wait, or take over.

A lease is a file that names its owner; the owner touches it every few seconds. A waiting
process takes over immediately if the owner ran on this machine and is dead, otherwise once
the file has not changed for EXPIRY_SECONDS. It measures that time with its own clock, so
the clocks of different machines need not agree.
"""

import logging
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cnn.io import atomic

log = logging.getLogger(__name__)

NAME = "lease.json"
HEARTBEAT_SECONDS = 5.0
EXPIRY_SECONDS = 60.0
POLL_SECONDS = 0.5
_LOCK_NAME = ".lease.lock"


class Owner(BaseModel):
    """A process, identified uniquely across machines and reboots."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    host: str
    processes: str  # the boot and the PID namespace in which `pid` is valid
    pid: int = Field(gt=0)
    started: str
    id: str

    @classmethod
    def this(cls) -> "Owner":
        """Return a new owner for this process; each call returns a different one."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname(),
            processes=_processes(),
            pid=pid,
            started=_started(pid),
            id=uuid.uuid4().hex,
        )

    @property
    def is_dead(self) -> bool:
        """Whether the process ran on this machine and no longer exists."""
        return self.processes == _processes() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextmanager
def held(folder: Path, done: Callable[[], bool]) -> Iterator[bool]:
    """Hold the folder's lease during the block, after waiting for its current owner.

    Yield whether it had to wait. The wait ends early, without the lease, once `done` returns
    true. When the lease is released, the folder is removed too if nothing else is in it.
    Raises StoreUnwritableError if the lease cannot be written.
    """
    owner = Owner.this()
    waited = _wait(folder, owner, done)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(folder / NAME, owner, stop), daemon=True)
    beat.start()
    try:
        yield waited
    finally:
        stop.set()
        beat.join()
        _give_up(folder, owner)


def is_live(folder: Path) -> bool:
    """Return whether a live process seems to hold the folder's lease; never waits."""
    path = folder / NAME
    owner = _owner(path)
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    return owner is not None and not owner.is_dead and age < EXPIRY_SECONDS


def discard(folder: Path) -> None:
    """Remove a folder and its contents unless a live process holds its lease."""
    with suppress(OSError), atomic.exclusive_lock(folder / _LOCK_NAME):
        if not is_live(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _wait(folder: Path, owner: Owner, done: Callable[[], bool]) -> bool:
    """Take the lease as soon as it is free; return whether it had to wait."""
    path = folder / NAME
    seen, since, waited = _beat_of(path), time.monotonic(), False
    while not (waited and done()):
        if (now := _beat_of(path)) != seen:
            seen, since = now, time.monotonic()
        stale = seen if time.monotonic() - since >= EXPIRY_SECONDS else None
        if _take(folder, owner, stale):
            break
        if not waited:
            log.info("%s is already doing this; waiting for it", _owner(path) or "another process")
            waited = True
        time.sleep(POLL_SECONDS)
    return waited


def _take(folder: Path, owner: Owner, stale: tuple[int, int] | None) -> bool:
    """Take a lease that is free, whose owner is dead, or whose heartbeat is still `stale`."""
    path = folder / NAME
    with atomic.disk_faults("a lease", folder), atomic.exclusive_lock(folder / _LOCK_NAME):
        beat, before = _beat_of(path), _owner(path)
        if beat is not None and beat != stale and not (before and before.is_dead):
            return False
        if beat is not None:
            log.info("%s ended without finishing; taking over", before or "another process")
        try:
            atomic.replace(path, owner.model_dump_json().encode())
        except OSError:
            _leave(folder)
            raise
        return True


def _beat(path: Path, owner: Owner, stop: threading.Event) -> None:
    """Touch the lease every few seconds for as long as the owner holds it."""
    while not stop.wait(HEARTBEAT_SECONDS):
        with suppress(OSError):
            if _owner(path) == owner:
                os.utime(path)


def _give_up(folder: Path, owner: Owner) -> None:
    """Remove the lease if the owner still holds it, and the folder if it is then empty."""
    if _owner(folder / NAME) != owner:
        return
    with suppress(OSError), atomic.exclusive_lock(folder / _LOCK_NAME):
        if _owner(folder / NAME) == owner:
            (folder / NAME).unlink()
            _leave(folder)


def _leave(folder: Path) -> None:
    """Remove the lock file, which the caller has locked, and the folder if it is then empty."""
    with suppress(OSError):
        (folder / _LOCK_NAME).unlink()
        folder.rmdir()


def _owner(path: Path) -> Owner | None:
    with suppress(OSError, ValidationError):
        return Owner.model_validate_json(path.read_bytes())
    return None


def _beat_of(path: Path) -> tuple[int, int] | None:
    """Return a value that changes with every heartbeat and owner, or None without a lease."""
    with suppress(FileNotFoundError, NotADirectoryError):
        stat = path.stat()
        return stat.st_ino, stat.st_mtime_ns
    return None


def _processes() -> str:
    """Return the boot and the PID namespace in which this process's pid is valid."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """Return a process's start time in clock ticks; "" if it does not exist or is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
