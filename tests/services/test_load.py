"""Runs that are submitted at once each run exactly once, with either database."""

from collections import Counter
from pathlib import Path

import pytest

from tests.services import loading
from tests.services.servers import Server, Worker

pytestmark = [pytest.mark.service, pytest.mark.timeout(400)]

N_SIDE_BY_SIDE = 2
SEEDS = [0, 1, 2, 2]


def test_runs_submitted_at_once_each_run_once(
    server: Server, worker: Worker, tmp_path: Path
) -> None:
    """One folder per run, one training per key, never more concurrent runs than allowed."""
    store = tmp_path / "artifacts"
    deployment = server.deploy("load", store, loading.CONFIG, limit=N_SIDE_BY_SIDE)
    load = loading.submit(server, deployment, store, SEEDS, longest=300)
    assert load.names == ["Completed"] * len(SEEDS)
    assert [run["run_count"] for run in load.runs] == [1] * len(SEEDS)
    assert load.n_side_by_side == N_SIDE_BY_SIDE
    recorded = Counter(record["flow_run_id"] for record in load.records)
    assert recorded == Counter(run["id"] for run in load.runs)
    assert sorted(record["seed"] for record in load.records) == SEEDS
    assert load.n_trainings == len(set(SEEDS))
    assert server.slots_taken(deployment) == 0
