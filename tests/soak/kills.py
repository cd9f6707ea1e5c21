"""Kills real runs in chosen phases, as a power failure or an impatient operator would."""

import functools
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.commands import latest

# The command, with MNIST from a local server, and checkpoints without a limit on their cost.
COMMAND = """
import sys
from cnn.data import published
from cnn.train import checkpoints
known = published.SETS["mnist"].sha256
published.SETS["mnist"] = published.PublishedSet((sys.argv[1],), sha256=known)
checkpoints.LARGEST_SHARE = 1.0
from flows import cli
cli.main(sys.argv[2:])
"""
WORDS = (
    *("run", "--data.source", "mnist", "--train.steps", "150"),
    *("--runtime.checkpoint_seconds", "0.5"),
)
PHASES = ("download", "training", "checkpoint", "publishing", "mining", "report")
_PIECE = 1 << 16  # bytes
_LONGEST = 300.0  # seconds to wait for a phase or for the end of a run


@dataclass(frozen=True)
class Killed:
    """A killed run: its phase, what showed that phase, and its exit code."""

    phase: str
    seen: str
    returncode: int


@contextmanager
def served(folder: Path, pause: float) -> Iterator[str]:
    """Serve a folder's files in pieces, with a pause in seconds after each; yields the address."""

    class Handler(SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            with suppress(ConnectionError):  # the client was killed
                while piece := source.read(_PIECE):
                    outputfile.write(piece)
                    time.sleep(pause)

        def log_message(self, *words: Any) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def start(address: str, store: Path, log: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a run in its own process; its output goes to `log`."""
    command = [sys.executable, "-c", COMMAND, address, *WORDS, *words, "--store", str(store)]
    with log.open("ab") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=stream, cwd=store.parent)


def kill_in(
    phase: str, address: str, store: Path, log: Path, chance: random.Random
) -> Killed | None:
    """Start a run and kill it at a moment of a phase; return None if the moment was missed."""
    moment = _moments(store, chance)[phase]
    process = start(address, store, log)
    deadline = time.monotonic() + _LONGEST
    while not (seen := moment()):
        if process.poll() is not None:  # the moment was too short to be seen
            assert process.returncode == 0, log.read_text()
            return None
        assert time.monotonic() < deadline, f"{phase} was not reached:\n{log.read_text()}"
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    return Killed(phase, seen, process.wait())


def run_again(address: str, store: Path, log: Path, *words: str) -> dict[str, Any]:
    """Run to the end and return run.json."""
    process = start(address, store, log, *words)
    assert process.wait(_LONGEST) == 0, log.read_text()
    return latest(store)


def digests(record: dict[str, Any]) -> dict[str, str]:
    """Return the digest of each artifact of a run, by kind."""
    return {step["ref"]["kind"]: step["ref"]["digest"] for step in record["steps"]}


def files(store: Path) -> dict[str, bytes]:
    """Return the figures, tables and arrays of a store's last run, by name."""
    folder = max((store / "runs").glob("2*"))
    places = ("figures", "tables", "arrays")
    return {p.name: p.read_bytes() for place in places for p in (folder / place).iterdir()}


def _moments(store: Path, chance: random.Random) -> dict[str, Callable[[], str]]:
    """Return, by phase, functions that return "" until the phase's moment, then describe it."""
    kinds = ("dataset", "model", "evaluation", "filters", "report", "run")
    n_bytes = chance.randrange(9_000_000)
    place = chance.choice(kinds)
    publishing = (
        _appears(store, ".2*.part", 0.0)
        if place == "run"
        else _appears(store / "store", f".{place}-*.part/*", chance.uniform(0, 0.05))
    )
    return {
        "download": lambda: _larger(store / "downloads/mnist", n_bytes),
        "training": _appears(store / "checkpoints", "*/step-*.npz", chance.uniform(0, 2)),
        "checkpoint": _appears(
            store / "checkpoints", "*/.step-*.part", 0.0, chance.choice((1, 2, 3))
        ),
        "publishing": publishing,
        "mining": _appears(store / "store", ".patches-*.part", chance.uniform(0, 1.5)),
        "report": _appears(store / "store", ".report-*.part", chance.uniform(0, 3)),
    }


def _appears(folder: Path, pattern: str, pause: float, number: int = 1) -> Callable[[], str]:
    """Return a function that is true some seconds after `number` paths of a pattern appeared."""
    found: dict[str, float] = {}

    def seen() -> str:
        for path in folder.glob(pattern):
            found.setdefault(path.name, time.monotonic())
        due = len(found) >= number and time.monotonic() - max(found.values()) >= pause
        return f"{pattern}, {number} seen, after {pause:.2f} s" if due else ""

    return seen


def _larger(folder: Path, n_bytes: int) -> str:
    for path in folder.glob(".*.part"):
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            continue
        if size > n_bytes:
            return f"{path.name.split('.')[1]} at {size:,} bytes"
    return ""
