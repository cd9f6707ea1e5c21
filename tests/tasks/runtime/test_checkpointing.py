"""Which checkpoint a training resumes from, what it reports, and which process trains."""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cnn.config import run as config
from cnn.pipeline import planning
from cnn.pipeline.steps import LOAD_DATASET, TRAIN_MODEL
from cnn.store import leases
from cnn.store.keys import Key
from cnn.store.manifests import Headline
from cnn.store.store import Store
from cnn.train import checkpoints, device
from cnn.train.device import Device
from cnn.train.fit import TrainingState
from tasks.runtime import checkpointing, context

KEY = Key("model", {"step": "train_model"})
HERE = Device("cpu", "this processor", 2)


class FakeRun:
    """A run whose device uses the checkpoint's threads unless `threads` is set."""

    def __init__(self, root: Path, threads: int | None = None, device: Device = HERE) -> None:
        self.store, self.refresh = Store(root), frozenset[str]()
        self._threads, self._device = threads, device
        self._made: Device | None = None

    def device(self, threads: int | None = None) -> Device:
        if self._made is None:
            found = self._threads or threads or self._device.threads
            self._made = replace(self._device, threads=found)
        return self._made


def write(root: Path, step: int, device: Device = HERE) -> Path:
    state = TrainingState(step, [np.full(5, step, np.float32)], (0.5, 1, 1), [])
    return checkpoints.write(Store(root).checkpoints / KEY.digest, state, device)


def newest(run: FakeRun) -> tuple[int | None, list[str]]:
    found, messages = checkpointing.newest(run, KEY)  # type: ignore[arg-type]
    return found.state.step if found else None, messages


def test_without_checkpoints_there_is_no_message(tmp_path: Path) -> None:
    """TensorFlow is not started either."""
    run = FakeRun(tmp_path)
    assert newest(run) == (None, [])
    assert run._made is None


def test_the_message_has_step_and_time_of_the_checkpoint(tmp_path: Path) -> None:
    """The newest checkpoint is used."""
    write(tmp_path, 25)
    os.utime(write(tmp_path, 12_050), (3600, 3600))
    assert newest(FakeRun(tmp_path)) == (
        12_050,
        ["resumed from step 12,050, checkpoint of 01:00:00 UTC"],
    )


def test_a_damaged_checkpoint_is_named_and_an_older_one_used(tmp_path: Path) -> None:
    """The message explains why work was lost."""
    write(tmp_path, 25)
    damaged = write(tmp_path, 50)
    damaged.write_bytes(damaged.read_bytes()[:-40])
    step, (first, second) = newest(FakeRun(tmp_path))
    assert step == 25
    assert first.startswith(f"checkpoint {damaged}: incomplete or damaged (")
    assert first.endswith("; skipped")
    assert second.startswith("resumed from step 25, ")


def test_threads_decide_whether_a_checkpoint_is_used(tmp_path: Path) -> None:
    """Unless the settings say otherwise, the run uses the checkpoint's threads; else it is kept."""
    path = write(tmp_path, 25, replace(HERE, threads=7))
    step, (message,) = newest(FakeRun(tmp_path, threads=3))
    assert step is None
    assert message == (
        "checkpoint of step 25 skipped: written on a cpu with 7 threads, "
        "but this run uses a cpu with 3"
    )
    assert path.exists()
    assert newest(FakeRun(tmp_path, threads=7))[0] == 25
    run = FakeRun(tmp_path)
    assert newest(run)[0] == 25
    assert run.device().threads == 7


def test_an_older_checkpoint_with_the_right_threads_is_used(tmp_path: Path) -> None:
    """Newer ones with other threads are skipped, with a message for each."""
    for step in (1000, 1025):
        write(tmp_path, step, replace(HERE, threads=7))
    for step in (25, 50, 75):
        write(tmp_path, step, replace(HERE, threads=3))
    step, messages = newest(FakeRun(tmp_path, threads=3))
    assert step == 75
    assert [message.split(":")[0] for message in messages[:2]] == [
        "checkpoint of step 1,025 skipped",
        "checkpoint of step 1,000 skipped",
    ]
    assert newest(FakeRun(tmp_path))[0] == 1025


def test_a_checkpoint_of_another_kind_of_device_is_skipped(tmp_path: Path) -> None:
    """A GPU rounds sums differently."""
    write(tmp_path, 25, Device("gpu", "a card", 2))
    step, (message,) = newest(FakeRun(tmp_path))
    assert step is None
    assert message.endswith("written on a gpu with 2 threads, but this run uses a cpu with 2")


def test_a_checkpoint_of_another_processor_is_used_with_a_message(tmp_path: Path) -> None:
    """Several machines may share a store; the bytes may then differ."""
    write(tmp_path, 25, replace(HERE, name="another processor"))
    step, messages = newest(FakeRun(tmp_path))
    assert step == 25
    assert messages[1:] == [
        "the checkpoint was written on another processor; "
        "the last bits of the weights may differ on this processor"
    ]


def publishing(text: str) -> Callable[[Path], Headline]:
    def produce(folder: Path) -> Headline:
        (folder / "model.txt").write_text(text)
        return {}

    return produce


@pytest.mark.parametrize("damaged", [False, True])
def test_a_model_published_just_before_the_lease_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    """The decision is made again with the lease: another process may have published or repaired."""
    run: Any = FakeRun(tmp_path)
    if damaged:
        path = run.store.open(run.store.publish(KEY, (), publishing("weights")).ref) / "model.txt"
        path.write_text("damaged")
    held = leases.held

    def late(*args: Any) -> Any:
        run.store.publish(KEY, (), publishing("weights"))
        return held(*args)

    monkeypatch.setattr(leases, "held", late)
    with checkpointing.decided(TRAIN_MODEL, run, KEY) as decision:
        assert not decision.problem
        assert decision.manifest is not None


def test_a_waiting_training_reuses_the_other_ones_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs which process it waits for, and does not read every manifest while it waits."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(leases, "POLL_SECONDS", 0.01)
    run: Any = FakeRun(tmp_path)
    decisions = []

    def second() -> None:
        with checkpointing.decided(TRAIN_MODEL, run, KEY) as decision:
            decisions.append(decision)

    with checkpointing.decided(TRAIN_MODEL, run, KEY) as first:
        assert first.manifest is None
        thread = threading.Thread(target=second)
        thread.start()
        while "is already doing this; waiting for it" not in caplog.text:
            assert thread.is_alive()
        monkeypatch.setattr(planning, "_reason", lambda *_: pytest.fail("read all manifests"))
        time.sleep(0.1)
        published = run.store.publish(KEY, (), publishing("weights"))
        run.store.finish(KEY)
        thread.join(30)
    assert [decision.manifest for decision in decisions] == [published]
    assert not (run.store.checkpoints / KEY.digest).exists()


def test_only_a_step_that_can_resume_waits(tmp_path: Path) -> None:
    """Loading data twice is harmless, so that step takes no lease."""
    run: Any = FakeRun(tmp_path)
    key = Key("dataset", {"step": "load_dataset"})
    with checkpointing.decided(LOAD_DATASET, run, key) as decision:
        assert decision.manifest is None
        assert not run.store.checkpoints.exists()


def test_checkpoints_are_removed_when_the_training_is_finished(tmp_path: Path) -> None:
    """A sweep also removes those of a process that was killed after it published its model."""
    run: Any = FakeRun(tmp_path)
    for step in (25, 50):
        write(tmp_path, step)
    with checkpointing.decided(TRAIN_MODEL, run, KEY):
        run.store.sweep()
        assert newest(FakeRun(tmp_path))[0] == 50
        run.store.publish(KEY, (), publishing("weights"))
        run.store.sweep()
        assert newest(FakeRun(tmp_path))[0] == 50, "its owner is still running"
    run.store.sweep()
    assert not (run.store.checkpoints / KEY.digest).exists()
    write(tmp_path, 25)
    run.store.finish(KEY)
    assert newest(FakeRun(tmp_path)) == (None, [])


@pytest.mark.parametrize(
    ("runtime", "modules", "threads"),
    [({}, {}, 7), ({"threads": 3}, {}, 3), ({}, {"tensorflow": object()}, None)],
)
def test_the_runs_own_device_follows_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: Any, modules: Any, threads: int | None
) -> None:
    """Only if the settings name no threads and TensorFlow is not imported yet."""
    prepared: list[Any] = []
    monkeypatch.setattr(device, "prepare", lambda runtime: prepared.append(runtime.threads))
    monkeypatch.setattr(context, "sys", SimpleNamespace(modules=modules))
    context.RunContext(config.validate({"runtime": runtime}), tmp_path).device(7)
    assert prepared == [threads]
