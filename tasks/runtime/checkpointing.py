"""Trainings that go on where an interrupted one stopped, and wait for one that is under way."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from cnn.pipeline import planning
from cnn.pipeline.planning import Decision
from cnn.pipeline.steps import Step
from cnn.store import leases
from cnn.store.keys import Key
from cnn.train import checkpoints
from cnn.train.checkpoints import Checkpoint
from cnn.train.device import Device
from tasks.runtime.context import RunContext


@contextmanager
def decided(step: Step, run: RunContext, key: Key) -> Iterator[Decision]:
    """Yield what is decided on a step; one that resumes waits while another process does it."""
    decision = planning.decide(run.store, step, key, run.refresh)
    if decision.manifest or not step.resumes:
        yield decision
        return

    def done() -> bool:  # asked twice a second: no more than a look for one artifact
        return step.name not in run.refresh and run.store.find(key).manifest is not None

    with leases.held(run.store.checkpoints / key.digest, done):
        yield planning.decide(run.store, step, key, run.refresh)  # others were at work meanwhile


def newest(run: RunContext, key: Key) -> tuple[Checkpoint | None, list[str]]:
    """Return the checkpoint that the run goes on from, if any, and what to say about it.

    TensorFlow is started with the checkpoint's number of threads where the settings do
    not name one: another number changes the last bits of the weights.
    """

    def unsuited(found: Checkpoint) -> str:
        here, then = run.device(found.device.threads), found.device
        if (here.kind, here.threads) == (then.kind, then.threads):
            return ""
        return (
            f"checkpoint of step {found.state.step:,} skipped: made on a {then.kind} with "
            f"{then.threads} threads, this run has a {here.kind} with {here.threads}"
        )

    found, words = checkpoints.newest(run.store.checkpoints / key.digest, unsuited)
    if found:
        words += _words(found, run.device())
    return found, words


def _words(found: Checkpoint, here: Device) -> Iterator[str]:
    made = datetime.fromtimestamp(found.path.stat().st_mtime, UTC)
    yield f"went on from step {found.state.step:,}, checkpoint of {made:%H:%M:%S} UTC"
    if here.name != found.device.name:
        yield f"the checkpoint is from {found.device.name}; last bits may differ on {here.name}"
