"""Puts load on Prefect's server: 20 runs on digits at once, 4 of them allowed side by side.

    python -m benchmarks.load [--repeats 3]

SQLite and PostgreSQL take turns, each time with an empty database, an empty store and a worker of
its own: once with 20 seeds, hence 20 trainings, and once with one seed, where one run trains and
the others reuse its model. Prints for each the wall time, the time from submission to start, and
how many requests the busy database refused (clients retry those), then the ratio of the wall times
with its spread.
"""

import argparse
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from tests.services import loading
from tests.services.databases import Database
from tests.services.loading import Load
from tests.services.servers import server_with, working

N_RUNS, N_SIDE_BY_SIDE = 20, 4
LONGEST = 1800.0  # seconds until all runs must be over
CASES = {"20 seeds": list(range(N_RUNS)), "one seed": [0] * N_RUNS}


def main() -> None:
    """Print a line for each load and the ratios of each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", choices=list(CASES), action="append")
    asked = parser.parse_args()
    cases = {name: CASES[name] for name in asked.case or CASES}
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(asked.repeats):
        for name, seeds in cases.items():
            for kind in get_args(Database):
                load = _measure(kind, seeds)
                seconds.setdefault((name, kind), []).append(load.seconds)
                print(_line(kind, name, load), *_bad_ends(load), sep="\n  ", flush=True)
    for name in cases:
        print(_ratio(name, seconds[name, "sqlite"], seconds[name, "postgresql"]))


def _measure(kind: Database, seeds: list[int]) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        store = place / "artifacts"
        with server_with(kind, place) as server, working(server, place):
            deployment = server.deploy("load", store, loading.CONFIG, limit=N_SIDE_BY_SIDE)
            return loading.submit(server, deployment, store, seeds, LONGEST)


def _line(kind: str, name: str, load: Load) -> str:
    ended = ", ".join(f"{n} {state}" for state, n in Counter(load.names).items())
    folders = len({record["flow_run_id"] for record in load.records})
    return (
        f"{kind:<10}  {name}: {ended}; {folders} run folders, {load.n_trainings} trainings; "
        f"at most {load.n_side_by_side} side by side; wall {load.seconds:.0f} s; submit to start "
        f"{min(load.waits):.0f} to {max(load.waits):.0f} s, median {load.median_wait:.0f} s; "
        f"{load.n_busy} requests refused as busy"
    )


def _bad_ends(load: Load) -> Iterator[str]:
    """Yield the reason why each incomplete run did not complete."""
    for run in load.runs:
        if run["state"]["type"] != "COMPLETED":
            yield f"{run['name']} {run['state']['name']}: {run['state']['message']}"


def _ratio(name: str, sqlite: list[float], postgresql: list[float]) -> str:
    ratios = [ours / theirs for ours, theirs in zip(sqlite, postgresql, strict=True)]
    return (
        f"{name}: SQLite takes {statistics.median(ratios):.2f} times as long as PostgreSQL "
        f"({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds)"
    )


if __name__ == "__main__":
    main()
