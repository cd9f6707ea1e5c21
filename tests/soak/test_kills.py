"""Real MNIST runs, killed at chosen moments: each plain re-run ends as if nothing had been.

A sample by default, one kill in two of the phases; FILTERSCOPE_KILLS asks for that many in each.
"""

import logging
import os
import random
import re
from pathlib import Path

import pytest

from tests.soak import kills

pytestmark = [pytest.mark.slow, pytest.mark.real_mnist, pytest.mark.timeout(900)]

log = logging.getLogger(__name__)

_N_ATTEMPTS = 3
N_KILLS = int(os.environ.get("FILTERSCOPE_KILLS", "0"))
PHASES = kills.PHASES if N_KILLS else ("training", "publishing")


@pytest.fixture(scope="module")
def reference(mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run that nothing interrupted."""
    store = tmp_path_factory.mktemp("whole") / "artifacts"
    with kills.served(mnist_dir, 0.0) as address:
        kills.run_again(address, store, store.parent / "log.txt")
    return store


@pytest.mark.parametrize("number", range(N_KILLS or 1))
@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_run_ends_with_the_same_bytes(
    phase: str, number: int, reference: Path, mnist_dir: Path, tmp_path: Path
) -> None:
    """SIGKILL in a phase, then the same command: same digests and files, nothing left over."""
    pause = 0.01 if phase == "download" else 0.0
    with kills.served(mnist_dir, pause) as address:
        for attempt in range(_N_ATTEMPTS):
            store = tmp_path / str(attempt) / "artifacts"
            store.parent.mkdir()
            words = store.parent / "log.txt"
            chance = random.Random(f"{phase} {number} {attempt}")
            if killed := kills.kill_in(phase, address, store, words, chance):
                break
        assert killed, f"{phase} was missed {_N_ATTEMPTS} times"
        record = kills.run_again(address, store, words)
    (training,) = (step for step in record["steps"] if step["step"] == "train_model")
    resumed = re.search(r"went on from step ([\d,]+)", training["why"])
    went_on = f", went on from step {resumed[1].rstrip(',')}" if resumed else ""
    log.info("%s at %s: train_model %s%s", phase, killed.seen, training["state"], went_on)
    assert killed.returncode == -9
    assert kills.digests(record) == kills.digests(kills.record(reference))
    assert kills.files(store) == kills.files(reference)
    assert kills.leftovers(store) == []
    if phase == "training":
        assert resumed
