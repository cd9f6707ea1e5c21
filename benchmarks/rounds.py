"""Measures ways of doing the same thing in turns, each in a process that waits for its turn."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

# Threads that wait for work must not take the processor from the process whose turn it is.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
_ENDING = 20.0  # seconds

Peers = Mapping[str, tuple[str, ...]]  # name -> how to make it: "module:function", "option=value"


@dataclass(frozen=True)
class Spread:
    """Results of several rounds: median, smallest and largest."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of some values."""
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def of_ratios(cls, values: Sequence[float], others: Sequence[float]) -> "Spread":
        """Return the spread of values divided by others, round by round."""
        return cls.of([a / b for a, b in zip(values, others, strict=True)])


class Waiting:
    """A peer in a process of its own that works on request."""

    def __init__(self, maker: str, *options: str) -> None:
        command = [sys.executable, "-m", "benchmarks.rounds", maker, *options]
        self._process = subprocess.Popen(
            command,
            env=os.environ | PASSIVE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        """Wait until it is warm."""
        assert self._said() == "ready"

    def timed(self, n: int) -> tuple[float, Any]:
        """Return the seconds it worked on n, and its result."""
        assert self._process.stdin
        self._process.stdin.write(f"{n}\n")
        self._process.stdin.flush()
        seconds, result = self._said()
        return seconds, result

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def end(self) -> None:
        """Let the process finish and exit; kill it if it does not."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _said(self) -> Any:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith(">"):
                return json.loads(line[1:])
        raise RuntimeError("a peer ended; what it said stands above")


@contextmanager
def waiting(peers: Peers) -> Iterator[dict[str, Waiting]]:
    """Yield the peers, each warm and waiting, and end them afterwards."""
    started: dict[str, Waiting] = {}
    try:
        for name, words in peers.items():
            started[name] = Waiting(*words)
            started[name].ready()  # one after the other, so that no two warm up at once
        yield started
    finally:
        for one in started.values():
            one.end()


def rates(peers: Peers, n_rounds: int, seconds: float) -> dict[str, list[float]]:
    """Return the steps per second of each peer in each round, over about that many seconds each."""
    with waiting(peers) as ready:
        pace = {name: one.timed(25)[0] / 25 for name, one in ready.items()}
        n = {name: max(25, round(seconds / taken / 25) * 25) for name, taken in pace.items()}
        return paces(ready, n, n_rounds)


def paces(
    ready: Mapping[str, Waiting], n: Mapping[str, int], n_rounds: int
) -> dict[str, list[float]]:
    """Return the items per second of each peer in each round, when it works on its own n."""
    found: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(n_rounds):
        for name, one in ready.items():
            found[name].append(n[name] / one.timed(n[name])[0])
    return found


def anonymous_memory(pid: int) -> int:
    """Return the anonymous memory of a process, in bytes: what belongs to no file."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def _serve(maker: str, *options: str) -> None:
    """Be one peer: warm up, then work on the n of each input line, and print how long it took."""
    module, _, function = maker.partition(":")
    make = getattr(import_module(f"benchmarks.peers.{module}"), function)
    work: Callable[[int], Any] = make(**dict(option.split("=") for option in options))
    print(">" + json.dumps("ready"), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        result = work(int(line))
        print(">" + json.dumps((time.perf_counter() - started, result)), flush=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
