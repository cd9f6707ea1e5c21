"""Real MNIST runs, killed at chosen moments: running again gives the same bytes.

One kill in each of two phases by default; FILTERSCOPE_KILLS sets the number of kills in each phase.
"""

import logging
import os
import random
import re
from pathlib import Path

import pytest

from tests import commands
from tests.soak import kills

pytestmark = [pytest.mark.slow, pytest.mark.real_mnist, pytest.mark.timeout(900)]

log = logging.getLogger(__name__)

_N_ATTEMPTS = 3
N_KILLS = int(os.environ.get("FILTERSCOPE_KILLS", "0"))
PHASES = kills.PHASES if N_KILLS else ("training", "publishing")


@pytest.fixture(scope="module")
def reference(mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an uninterrupted run."""
    store = tmp_path_factory.mktemp("whole") / "artifacts"
    with kills.served(mnist_dir, 0.0) as address:
        kills.run_again(address, store, store.parent / "log.txt")
    return store


@pytest.mark.parametrize("number", range(N_KILLS or 1))
@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_run_ends_with_the_same_bytes(
    phase: str, number: int, reference: Path, mnist_dir: Path, tmp_path: Path
) -> None:
    """After SIGKILL the same command gives the same digests and files, and nothing else is left."""
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
    resumed = re.search(r"resumed from step ([\d,]+)", training["why"])
    resumed_from = f", resumed from step {resumed[1].rstrip(',')}" if resumed else ""
    log.info("%s at %s: train_model %s%s", phase, killed.seen, training["state"], resumed_from)
    assert killed.returncode == -9
    assert kills.digests(record) == kills.digests(commands.latest(reference))
    assert kills.files(store) == kills.files(reference)
    assert commands.temporaries(store) == []
    if phase == "training":
        assert resumed
