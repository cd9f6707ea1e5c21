"""Measures several ways of doing the same in turns, each in a process that waits for its turn."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

# Threads that wait for work must not take the processor from whoever's turn it is.
_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}


@dataclass(frozen=True)
class Spread:
    """What several rounds gave: median, smallest and largest."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of some values."""
        return cls(statistics.median(values), min(values), max(values))


class Waiting:
    """A peer in a process of its own, warmed up, that trains when it is asked to."""

    def __init__(self, peer: str, *options: str) -> None:
        command = [sys.executable, "-m", "benchmarks.rounds", peer, *options]
        self._process = subprocess.Popen(
            command,
            env=os.environ | _PASSIVE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        """Wait until it is warm."""
        assert self._said() == "ready"

    def rate(self, seconds: float) -> float:
        """Return the steps a second over about so many seconds."""
        assert self._process.stdin
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return float(self._said())

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _said(self) -> str:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith(">"):
                return str(json.loads(line[1:]))
        raise RuntimeError("a peer ended; what it said stands above")


def in_turns(
    peers: Mapping[str, tuple[str, ...]], n_rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Return the steps a second of each peer in each round; rounds alternate."""
    waiting = {}
    try:
        for name, words in peers.items():
            waiting[name] = Waiting(*words)
            waiting[name].ready()
        rates: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(n_rounds):
            for name, one in waiting.items():
                rates[name].append(one.rate(seconds))
        return rates
    finally:
        for one in waiting.values():
            one.end()


def ratios(rates: Mapping[str, Sequence[float]], ours: str, theirs: str) -> Spread:
    """Return how many times as fast one is as another, round by round."""
    return Spread.of([a / b for a, b in zip(rates[ours], rates[theirs], strict=True)])


def _serve(peer: str, *options: str) -> None:
    """Be one peer: warm up, then measure whenever a line with seconds comes in."""
    named = dict(option.split("=") for option in options)
    batch_size = int(named.pop("batch"))
    steps = import_module(f"benchmarks.peers.{peer}").start(batch_size, **named)
    n = 25
    steps(n)
    pace = _seconds(steps, n) / n
    print(">" + json.dumps("ready"), flush=True)
    for line in sys.stdin:
        n = max(25, round(float(line) / pace / 25) * 25)
        pace = _seconds(steps, n) / n
        print(">" + json.dumps(1 / pace), flush=True)


def _seconds(steps, n: int) -> float:
    started = time.perf_counter()
    steps(n)
    return time.perf_counter() - started


if __name__ == "__main__":
    _serve(*sys.argv[1:])
