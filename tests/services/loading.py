"""A load test: submits many runs at once, waits for their end, and counts."""

import json
import statistics
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.commands import TINY
from tests.services.servers import FINAL, Run, Server, wait_until

CONFIG: Run = {
    "data": {"source": "digits"},
    "train": {"steps": 20, **TINY},
    "runtime": {"threads": 1},
}


@dataclass(frozen=True)
class Load:
    """The outcome of many runs that were submitted at once."""

    runs: tuple[Run, ...]  # from the API, when all have ended
    records: tuple[dict[str, Any], ...]  # the run.json of each run folder
    seconds: float  # from the first submission until all have ended
    n_busy: int  # requests that the server refused because its database was busy
    n_side_by_side: int  # the maximum number of slots in use

    @property
    def names(self) -> list[str]:
        """The names of the runs' final states."""
        return [run["state"]["name"] for run in self.runs]

    @property
    def waits(self) -> list[float]:
        """Seconds from each run's submission to its start."""
        return [_moment(run["start_time"]) - _moment(run["created"]) for run in self.runs]

    @property
    def n_trainings(self) -> int:
        """How many runs trained; the others reused a model."""
        steps = (step for record in self.records for step in record["steps"])
        return sum(step["step"] == "train_model" and step["state"] == "ran" for step in steps)

    @property
    def median_wait(self) -> float:
        """The median of the waits."""
        return statistics.median(self.waits)


def submit(server: Server, deployment: str, store: Path, seeds: list[int], longest: float) -> Load:
    """Submit a run for each seed, wait until all have ended, and return the outcome."""
    before, started = server.n_busy(), time.monotonic()
    configs = [{**CONFIG, "train": {**CONFIG["train"], "seed": seed}} for seed in seeds]
    ids = [server.submit(deployment, parameters={"config": config}) for config in configs]
    taken = 0

    def over() -> bool:
        nonlocal taken
        taken = max(taken, server.slots_taken(deployment))
        found = server.post("flow_runs/filter", deployments={"id": {"any_": [deployment]}})
        return all(run["state"]["type"] in FINAL for run in found)

    wait_until(over, "the end of all runs", longest, pause=1.0)
    seconds = time.monotonic() - started
    paths = sorted((store / "runs").glob("2*/run.json"))
    return Load(
        runs=tuple(server.run(flow_run) for flow_run in ids),
        records=tuple(json.loads(path.read_text()) for path in paths),
        seconds=seconds,
        n_busy=server.n_busy() - before,
        n_side_by_side=taken,
    )


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
