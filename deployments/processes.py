"""Background processes that outlive the command that started them.

Every process started here has a mark in its environment, which its child processes inherit: so
all of them are found and stopped, even if a parent was killed.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

MARK = "FILTERSCOPE_PART"
_PROC = Path("/proc")


class Process:
    """A background process with a name, a log and a file with its process id."""

    def __init__(self, state: Path, name: str) -> None:
        """Describe the process; nothing is started."""
        self.name, self.log = name, state / f"{name}.log"
        self._file = state / f"{name}.pid"

    def pid(self) -> int | None:
        """Return its process id, None if it is not running."""
        with suppress(OSError, ValueError):
            pid, started = self._file.read_text().split()
            if _started(int(pid)) == started:
                return int(pid)
        return None

    def start(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> int:
        """Start it in the background, append its output to its log, and return its process id."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**environment, MARK: self._mark()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._write_pid(process.pid)
        return process.pid

    def become(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
        """Replace the current process by it, for a supervisor; does not return."""
        self._write_pid(os.getpid())
        os.chdir(cwd)
        os.execvpe(command[0], list(command), {**environment, MARK: self._mark()})

    def tree(self) -> list[int]:
        """Return the ids of all processes with its mark, including its own."""
        mark = f"{MARK}={self._mark()}".encode()
        return [pid for pid in _pids() if mark in _environment(pid)]

    def end(self, seconds: float) -> None:
        """Stop it and every process that it started: SIGTERM, then SIGKILL after `seconds`."""
        pid = self.pid()
        if pid is not None:
            _send(pid, signal.SIGTERM)
            _wait_until_gone(lambda: [pid] if _started(pid) else [], seconds)
        for child in self.tree():
            _send(child, signal.SIGTERM)
        _wait_until_gone(self.tree, 5)
        for child in self.tree():
            _send(child, signal.SIGKILL)
        _wait_until_gone(self.tree, 5)
        self._file.unlink(missing_ok=True)

    def _mark(self) -> str:
        return str(self._file.with_suffix(""))

    def _write_pid(self, pid: int) -> None:
        self._file.write_text(f"{pid} {_started(pid)}\n")


def variable(pid: int, name: str) -> str | None:
    """Return a variable from the environment with which a process was started, if it is set."""
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
    """Return when a process started, in clock ticks since boot; "" if it has ended."""
    with suppress(OSError):
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait_until_gone(find: Callable[[], list[int]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while find() and time.monotonic() < deadline:
        time.sleep(0.1)
