"""Processes that outlive the command that started them: found again, and ended with all below.

Every process started here carries a mark in its environment, which whatever it starts
inherits: so nothing is missed, even where a parent was killed.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

MARK = "FILTERSCOPE_PART"
_PROC = Path("/proc")


class Process:
    """One process of a name, known by a file beside its log."""

    def __init__(self, state: Path, name: str) -> None:
        """Name it; nothing is started."""
        self.name, self.log = name, state / f"{name}.log"
        self._file = state / f"{name}.pid"

    def pid(self) -> int | None:
        """Return its number while it runs."""
        with suppress(OSError, ValueError):
            pid, started = self._file.read_text().split()
            if _started(int(pid)) == started:
                return int(pid)
        return None

    def start(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> int:
        """Start it in the background, with its output appended to its log; return its number."""
        with self.log.open("ab") as log:
            made = subprocess.Popen(
                command,
                cwd=cwd,
                env={**environment, MARK: self._mark()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._note(made.pid)
        return made.pid

    def become(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
        """Turn this very process into it, for whoever supervises it; does not return."""
        self._note(os.getpid())
        os.chdir(cwd)
        os.execvpe(command[0], list(command), {**environment, MARK: self._mark()})

    def tree(self) -> list[int]:
        """Return the numbers of all processes that carry its mark, its own among them."""
        mark = f"{MARK}={self._mark()}".encode()
        return [pid for pid in _pids() if mark in _environment(pid)]

    def end(self, seconds: float) -> None:
        """End it and all that it started: asked first, killed after some seconds."""
        pid = self.pid()
        if pid is not None:
            _send(pid, signal.SIGTERM)
            _wait_until_gone(lambda: [pid] if _runs(pid) else [], seconds)
        for number in self.tree():
            _send(number, signal.SIGTERM)
        _wait_until_gone(self.tree, 5)
        for number in self.tree():
            _send(number, signal.SIGKILL)
        _wait_until_gone(self.tree, 5)
        self._file.unlink(missing_ok=True)

    def _mark(self) -> str:
        return str(self._file.with_suffix(""))

    def _note(self, pid: int) -> None:
        self._file.write_text(f"{pid} {_started(pid)}\n")


def variable(pid: int, name: str) -> str | None:
    """Return a variable of the environment that a process was started with."""
    for entry in _environment(pid):
        key, _, value = entry.decode(errors="replace").partition("=")
        if key == name:
            return value
    return None


def _pids() -> list[int]:
    return [int(path.name) for path in _PROC.iterdir() if path.name.isdecimal()]


def _environment(pid: int) -> list[bytes]:
    try:
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; "" when it is over."""
    with suppress(OSError):
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""


def _runs(pid: int) -> bool:
    return bool(_started(pid))


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait_until_gone(find: object, seconds: float) -> None:
    assert callable(find)
    deadline = time.monotonic() + seconds
    while find() and time.monotonic() < deadline:
        time.sleep(0.1)
