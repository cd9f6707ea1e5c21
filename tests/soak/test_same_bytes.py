"""Runs on real MNIST from empty stores give the same bytes every time.

Two runs by default; FILTERSCOPE_RUNS sets their number.
"""

import os
from pathlib import Path

import pytest

from tests import commands
from tests.soak import kills

pytestmark = [pytest.mark.slow, pytest.mark.real_mnist, pytest.mark.timeout(900)]

N_RUNS = int(os.environ.get("FILTERSCOPE_RUNS", "2"))


def test_runs_from_empty_stores_have_the_same_bytes(mnist_dir: Path, tmp_path: Path) -> None:
    """Weights, tables and figures are equal; with another seed only the data set is."""
    with kills.served(mnist_dir, 0.0) as address:

        def run(name: str, *words: str) -> Path:
            store = tmp_path / name / "artifacts"
            store.parent.mkdir()
            kills.run_again(address, store, store.parent / "log.txt", *words)
            return store

        first, *others = (run(str(number)) for number in range(N_RUNS))
        other_seed = run("other", "--train.seed", "1")
    for store in others:
        assert kills.digests(commands.latest(store)) == kills.digests(commands.latest(first))
        assert kills.files(store) == kills.files(first)
    ours, theirs = (kills.digests(commands.latest(store)) for store in (first, other_seed))
    assert {kind for kind in ours if ours[kind] == theirs[kind]} == {"dataset"}
