"""Resumes interrupted trainings, and makes a second run of the same training wait for the first."""

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
    """Yield whether a step is cached or runs.

    A step that can resume first waits while another process works on the same key.
    """
    decision = planning.decide(run.store, step, key, run.refresh)
    if decision.manifest or not step.resumes:
        yield decision
        return

    def done() -> bool:  # called twice a second, so it only looks up one artifact
        return step.name not in run.refresh and run.store.find(key).manifest is not None

    with leases.held(run.store.checkpoints / key.digest, done):
        yield planning.decide(run.store, step, key, run.refresh)  # it may be in the store by now


def newest(run: RunContext, key: Key) -> tuple[Checkpoint | None, list[str]]:
    """Return the checkpoint to resume from, if any, and the messages about it.

    Unless the settings name a number of threads, TensorFlow starts with the checkpoint's
    number: another one changes the last bits of the weights.
    """

    def unsuited(found: Checkpoint) -> str:
        here, then = run.device(found.device.threads), found.device
        if (here.kind, here.threads) == (then.kind, then.threads):
            return ""
        return (
            f"checkpoint of step {found.state.step:,} skipped: written on a {then.kind} with "
            f"{then.threads} threads, but this run uses a {here.kind} with {here.threads}"
        )

    found, messages = checkpoints.newest(run.store.checkpoints / key.digest, unsuited)
    if found:
        messages += _messages(found, run.device())
    return found, messages


def _messages(found: Checkpoint, here: Device) -> Iterator[str]:
    written = datetime.fromtimestamp(found.path.stat().st_mtime, UTC)
    yield f"resumed from step {found.state.step:,}, checkpoint of {written:%H:%M:%S} UTC"
    if here.name != found.device.name:
        yield (
            f"the checkpoint was written on {found.device.name}; "
            f"the last bits of the weights may differ on {here.name}"
        )
