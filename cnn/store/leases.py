"""Leases: one process at a time does a piece of work, the others wait or take over.

A lease is a file that names its owner and that the owner touches every few seconds. The
one who waits takes over when the owner is gone: at once where its process is on this
machine and dead, else when the file has stood still for EXPIRY_SECONDS by the waiter's
own clock, so that clocks need not agree.
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
    """A process that can be told from any other, on this machine and elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    host: str
    processes: str  # the boot and the namespace in which `pid` means this process
    pid: int = Field(gt=0)
    started: str
    id: str

    @classmethod
    def this(cls) -> "Owner":
        """Return this process as an owner; each call is another owner."""
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
        """Whether the process is known to be gone: on this machine, and not there any more."""
        return self.processes == _processes() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextmanager
def held(folder: Path, done: Callable[[], bool]) -> Iterator[bool]:
    """Hold the folder's lease during the block, after waiting for whoever holds it.

    Yields whether it had to wait. The wait ends early, without the lease, when `done`
    says that nothing is left to do. A folder that holds nothing but the lease is removed
    with it.
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
    """Return whether somebody seems to hold the folder's lease, without waiting."""
    path = folder / NAME
    owner = _owner(path)
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    return owner is not None and not owner.is_dead and age < EXPIRY_SECONDS


def discard(folder: Path) -> None:
    """Remove a folder with all that is in it, unless somebody holds its lease."""
    with suppress(OSError), atomic.exclusive_lock(folder / _LOCK_NAME):
        if not is_live(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _wait(folder: Path, owner: Owner, done: Callable[[], bool]) -> bool:
    """Take the lease as soon as it is free; return whether that took a wait."""
    path = folder / NAME
    seen, since, waited = _beat_of(path), time.monotonic(), False
    while not (waited and done()):
        if (now := _beat_of(path)) != seen:
            seen, since = now, time.monotonic()
        stale = seen if time.monotonic() - since >= EXPIRY_SECONDS else None
        if _take(folder, owner, stale):
            break
        if not waited:
            log.info("%s does this already; waiting for it", _owner(path) or "another process")
            waited = True
        time.sleep(POLL_SECONDS)
    return waited


def _take(folder: Path, owner: Owner, stale: tuple[int, int] | None) -> bool:
    """Take a lease that is free, its owner dead, or whose heartbeat is still the stale one."""
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
    """Touch the lease every few seconds as long as it is the owner's."""
    while not stop.wait(HEARTBEAT_SECONDS):
        with suppress(OSError):
            if _owner(path) == owner:
                os.utime(path)


def _give_up(folder: Path, owner: Owner) -> None:
    """Remove the lease if it is still the owner's, and the folder if nothing else is in it."""
    if _owner(folder / NAME) != owner:
        return
    with suppress(OSError), atomic.exclusive_lock(folder / _LOCK_NAME):
        if _owner(folder / NAME) == owner:
            (folder / NAME).unlink()
            _leave(folder)


def _leave(folder: Path) -> None:
    """Remove the lock that is held, and the folder if nothing else is in it."""
    with suppress(OSError):
        (folder / _LOCK_NAME).unlink()
        folder.rmdir()


def _owner(path: Path) -> Owner | None:
    with suppress(OSError, ValidationError):
        return Owner.model_validate_json(path.read_bytes())
    return None


def _beat_of(path: Path) -> tuple[int, int] | None:
    """Return what changes with every heartbeat and every owner, or None without a lease."""
    with suppress(FileNotFoundError, NotADirectoryError):
        stat = path.stat()
        return stat.st_ino, stat.st_mtime_ns
    return None


def _processes() -> str:
    """Return which boot of which machine, and which namespace, this process's pid belongs to."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """Return when a process of this machine started, in clock ticks; "" where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
