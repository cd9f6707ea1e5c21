"""Cancel, kill and outage of runs that a worker started, all with real processes.

FILTERSCOPE_OUTAGES sets how often each is tried; `make soak` sets it.
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import TINY, latest
from tests.services.servers import BIN, Run, Server, Worker, kill, processes, wait_until, working

pytestmark = [
    pytest.mark.service,
    pytest.mark.parametrize("attempt", range(int(os.environ.get("FILTERSCOPE_OUTAGES", "1")))),
]

log = logging.getLogger(__name__)
CANCEL_SECONDS = 10.0
CONFIG: Run = {
    "data": {"source": "digits"},
    "train": {"steps": 12_000, **TINY},  # takes about 10 s
    "runtime": {"checkpoint_seconds": 0.5},
}


@dataclass
class Machine:
    """A deployment that allows one run at a time, its store, and a run that is training."""

    server: Server
    worker: Worker
    store: Path
    deployment: str
    run: str

    def again(self) -> Run:
        """Run again with the same settings and return the finished run."""
        return self.server.wait_for(self.server.submit(self.deployment))


@pytest.fixture
def machine(server: Server, tmp_path: Path) -> Iterator[Machine]:
    """An operator's machine with a run in progress that has written a checkpoint."""
    store = tmp_path / "artifacts"
    deployment = server.deploy(tmp_path.name, store, CONFIG)
    with working(server, tmp_path) as worker:
        run = server.submit(deployment)
        wait_until(lambda: list(store.glob("checkpoints/*/step-*")), "a checkpoint")
        yield Machine(server, worker, store, deployment, run)
        kill(run)


def test_a_cancel_ends_the_training_at_once(machine: Machine, attempt: int) -> None:
    """Within 10 s no process is left; the state is Cancelled, and the next run resumes."""
    machine.server.cancel(machine.run)
    started = time.monotonic()
    took = wait_until(lambda: not processes(machine.run), "the end", CANCEL_SECONDS)
    assert machine.server.wait_for(machine.run)["state"]["name"] == "Cancelled"
    _tell("cancelled: process gone after %.1f s, state after %.1f s", took, started)
    assert machine.server.slots_taken(machine.deployment) == 0
    assert machine.again()["state"]["name"] == "Completed"
    _assert_one_training_went_on(machine)


def test_a_killed_run_is_crashed_and_the_next_completes(machine: Machine, attempt: int) -> None:
    """The worker notices at once, and frees the slot."""
    kill(machine.run)
    started = time.monotonic()
    ended = machine.server.wait_for(machine.run, longest=15)
    _tell("killed: state after %.1f s", started)
    assert ended["state"]["type"] == "CRASHED"
    assert "SIGKILL" in ended["state"]["message"]
    assert machine.server.slots_taken(machine.deployment) == 0
    assert machine.again()["state"]["name"] == "Completed"
    _assert_one_training_went_on(machine)


def test_a_killed_worker_takes_its_run_with_it(
    machine: Machine, attempt: int, tmp_path: Path
) -> None:
    """The run reports that it crashed, or completes; a run of another worker resumes."""
    machine.worker.kill()
    started = time.monotonic()
    took = wait_until(lambda: not processes(machine.run), "the end", 20)
    ended = machine.server.wait_for(machine.run, longest=15)["state"]["type"]
    assert ended in ("CRASHED", "COMPLETED")
    _tell("worker killed: process gone after %.1f s, state after %.1f s", took, started)
    assert machine.server.slots_taken(machine.deployment) == 0
    with working(machine.server, tmp_path):
        assert machine.again()["state"]["name"] == "Completed"
    if ended == "CRASHED":
        _assert_one_training_went_on(machine)


def test_a_run_survives_a_restart_of_the_server(machine: Machine, attempt: int) -> None:
    """The training continues and the run completes, holding its slot until then."""
    machine.server.stop()
    time.sleep(2)
    machine.server.start()
    ended = machine.server.wait_for(machine.run)
    assert (ended["state"]["name"], ended["run_count"]) == ("Completed", 1)
    wait_until(lambda: machine.server.slots_taken(machine.deployment) == 0, "a free slot", 15)
    assert machine.again()["state"]["name"] == "Completed"
    assert [step["state"] for step in latest(machine.store)["steps"]] == ["cached"] * 6
    _assert_nothing_is_broken(machine.store)


def test_two_runs_of_one_key_never_train_at_once(
    machine: Machine, attempt: int, tmp_path: Path
) -> None:
    """A run of another deployment waits for the training in progress, and takes it over."""
    for pid in processes(machine.run):
        os.kill(pid, signal.SIGSTOP)  # or it might end before the other one starts
    other = machine.server.deploy(f"{tmp_path.name}-other", machine.store, CONFIG)
    waiting = machine.server.submit(other)
    wait_until(
        lambda: any("waiting for it" in line for line in machine.server.logs(waiting)), "the wait"
    )
    kill(machine.run)
    assert machine.server.wait_for(waiting)["state"]["name"] == "Completed"
    _assert_one_training_went_on(machine)


def _tell(words: str, *seconds: float) -> None:
    """Log measured durations; the last value is the time at which the measurement started."""
    log.info(words, *seconds[:-1], time.monotonic() - seconds[-1])


def _assert_one_training_went_on(machine: Machine) -> None:
    """The last run resumed the training of the one before, and nothing is broken."""
    trained = latest(machine.store)["steps"][1]
    assert trained["state"] == "ran"
    assert "resumed from step" in trained["why"]
    assert len(list((machine.store / "store/model").iterdir())) == 1
    _assert_nothing_is_broken(machine.store)


def _assert_nothing_is_broken(store: Path) -> None:
    command = [BIN / "filterscope", "verify", "--store", str(store)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert "nothing is broken" in found.stdout
    assert not list((store / "checkpoints").glob("*"))
