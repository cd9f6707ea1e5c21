"""Runs the command as a process of its own: starts it, watches it, kills it."""

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
LONGEST = 240.0  # seconds to wait for anything, on a busy machine
SOON = 5.0  # seconds within which the processes of a finished command are gone
# A network so small that thousands of steps take seconds.
TINY = {"batch_size": 16, "conv1_filters": 2, "conv2_filters": 3, "dense1_units": 8}
NET = tuple(word for name, n in TINY.items() for word in (f"--train.{name}", str(n)))
SMALL = ("run", "--data.source", "digits", *NET)
# Runs the command and prints which of the slow modules it imported.
IMPORTS = """
import sys
from flows import cli
try:
    cli.main(sys.argv[1:])
finally:
    heavy = {"prefect", "tensorflow", "keras", "pandas", "matplotlib"}
    print("imported", sorted(heavy & set(sys.modules)))
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a machine on which Prefect was never used, below a folder."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PREFECT_HOME": str(folder / "prefect"),
        "FILTERSCOPE_STORE": str(folder / "artifacts"),
        **more,
    }


def wait_for(condition: Callable[[], Any], seconds: float = LONGEST, pause: float = 0.1) -> Any:
    """Return the value of a condition as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not true after {seconds:.0f} s"
        time.sleep(pause)
    return value


class Command:
    """A running command; its output goes to a file."""

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
        """Wait until a condition is true while the command is running."""
        deadline = time.monotonic() + LONGEST
        while not condition():
            assert self.process.poll() is None, f"the command ended before:\n{self.text}"
            assert time.monotonic() < deadline, f"the command took too long:\n{self.text}"
            time.sleep(0.002)

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait() == -signal.SIGKILL

    def end(self) -> int:
        """Wait for its end and return the exit code."""
        return self.process.wait(LONGEST)


def finish(log: Path, words: tuple[str, ...], environment: dict[str, str]) -> str:
    """Run a command that must succeed and return its output."""
    command = Command(log, words, environment)
    assert command.end() == 0, command.text
    return command.text


def run_python(
    script: str, *words: str, environment: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a Python script that must succeed in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def latest(store: Path) -> dict[str, Any]:
    """Return the run.json of the newest run in a store."""
    path = max((store / "runs").glob("2*/run.json"), key=lambda path: path.stat().st_mtime_ns)
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def steps(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a run's steps by name."""
    return {step["step"]: step for step in record["steps"]}


def temporaries(store: Path) -> list[str]:
    """Return what should not be left after a run: temporary files, checkpoints, quarantine."""
    left = [*store.rglob("*.part"), *(store / "checkpoints").glob("*"), *store.glob("quarantine/*")]
    return sorted(str(path.relative_to(store)) for path in left)


def processes_with(text: str) -> dict[int, str]:
    """Return the processes whose environment contains a text: command lines by process id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (path / "environ").read_bytes():
                line = (path / "cmdline").read_bytes()
                found[int(path.name)] = line.replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def wait_for_the_end_of_all(folder: Path, seconds: float) -> None:
    """Wait until no process is left whose environment names a folder."""
    wait_for(lambda: not any(processes_with(str(folder)).values()), seconds)
