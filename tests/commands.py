"""The command as a process of its own: started, watched, killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).with_name("filterscope"))
LONGEST = 240.0  # seconds until something that is waited for must have come
SOON = 5.0  # seconds until what a command started is gone after it
# A network so small that thousands of steps take seconds.
NET = (
    *("--train.conv1_filters", "2", "--train.conv2_filters", "3"),
    *("--train.dense1_units", "8", "--train.batch_size", "16"),
)
SMALL = ("run", "--data.source", "digits", *NET)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a machine on which Prefect was never used, below a folder."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PREFECT_HOME": str(folder / "prefect"),
        "FILTERSCOPE_STORE": str(folder / "artifacts"),
        **more,
    }


class Command:
    """A command that runs; what it says goes into a file."""

    def __init__(self, log: Path, words: tuple[str, ...], environment: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                words, stdout=stream, stderr=stream, env=environment, cwd=log.parent
            )

    @property
    def text(self) -> str:
        return self._log.read_text()

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds while the command runs."""
        deadline = time.monotonic() + LONGEST
        while not condition():
            assert self.process.poll() is None, f"it ended before:\n{self.text}"
            assert time.monotonic() < deadline, f"it did not come:\n{self.text}"
            time.sleep(0.002)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait() == -signal.SIGKILL

    def end(self) -> int:
        """Return the exit code with which it ended by itself."""
        return self.process.wait(LONGEST)


def finish(log: Path, words: tuple[str, ...], environment: dict[str, str]) -> str:
    """Run a command to its good end and return what it said."""
    command = Command(log, words, environment)
    assert command.end() == 0, command.text
    return command.text


def latest(store: Path) -> dict[str, Any]:
    """Return what the newest run of a store says in run.json."""
    path = max((store / "runs").glob("2*/run.json"), key=lambda path: path.stat().st_mtime_ns)
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def steps(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a run's steps by name."""
    return {step["step"]: step for step in record["steps"]}


def temporaries(store: Path) -> list[str]:
    """Return what no process that is dead or done should leave."""
    left = [*store.rglob("*.part"), *(store / "checkpoints").glob("*"), *store.glob("quarantine/*")]
    return sorted(str(path.relative_to(store)) for path in left)


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of the processes whose Prefect lives below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if line]


def wait_for_the_end_of_all(folder: Path, seconds: float) -> None:
    """Wait until no process is left whose Prefect lives below a folder, for so long at most."""
    deadline = time.monotonic() + seconds
    while left := processes_of(folder):
        assert time.monotonic() < deadline, f"left: {left}"
        time.sleep(0.1)
