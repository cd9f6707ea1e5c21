"""Which checkpoint a training goes on from, what it says of it, and whose turn it is."""

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

from cnn.pipeline import planning
from cnn.pipeline.steps import LOAD_DATASET, TRAIN_MODEL
from cnn.store import leases
from cnn.store.keys import Key
from cnn.store.manifests import Headline
from cnn.store.store import Store
from cnn.train import checkpoints
from cnn.train.device import Device
from cnn.train.fit import TrainingState
from tasks.runtime import checkpointing

KEY = Key("model", {"step": "train_model"})
HERE = Device("cpu", "this processor", 2)


class FakeRun:
    """A run whose device takes the threads of the checkpoint where `threads` is not set."""

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
    found, words = checkpointing.newest(run, KEY)  # type: ignore[arg-type]
    return found.state.step if found else None, words


def test_without_checkpoints_nothing_is_said(tmp_path: Path) -> None:
    """A training that begins at its beginning needs no words, and starts no TensorFlow for them."""
    run = FakeRun(tmp_path)
    assert newest(run) == (None, [])
    assert run._made is None


def test_the_step_and_the_time_are_said(tmp_path: Path) -> None:
    """The words stand in the log and in the reason of the step."""
    write(tmp_path, 25)
    os.utime(write(tmp_path, 12_050), (3600, 3600))
    assert newest(FakeRun(tmp_path)) == (
        12_050,
        ["went on from step 12,050, checkpoint of 01:00:00 UTC"],
    )


def test_a_damaged_one_is_named_and_the_older_one_used(tmp_path: Path) -> None:
    """Whoever wonders about the lost minutes finds the reason."""
    write(tmp_path, 25)
    damaged = write(tmp_path, 50)
    damaged.write_bytes(damaged.read_bytes()[:-40])
    step, (first, second) = newest(FakeRun(tmp_path))
    assert step == 25
    assert first.startswith(f"checkpoint {damaged}: not complete or damaged (")
    assert first.endswith("; skipped")
    assert second.startswith("went on from step 25, ")


def test_silent_settings_take_the_checkpoints_threads(tmp_path: Path) -> None:
    """Another number of threads would end with other bytes."""
    write(tmp_path, 25, replace(HERE, threads=7))
    run = FakeRun(tmp_path)
    assert newest(run)[0] == 25
    assert run.device().threads == 7


def test_other_threads_in_the_settings_skip_it_with_the_reason(tmp_path: Path) -> None:
    """It is kept: a run with its number of threads may still go on from it."""
    path = write(tmp_path, 25, replace(HERE, threads=7))
    assert newest(FakeRun(tmp_path, threads=3)) == (
        None,
        ["checkpoint of step 25 skipped: made on a cpu with 7 threads, this run has a cpu with 3"],
    )
    assert path.exists()
    assert newest(FakeRun(tmp_path, threads=7))[0] == 25


def test_an_older_one_with_the_right_threads_is_used(tmp_path: Path) -> None:
    """What this run wrote counts for it, however far a run with other threads had come."""
    for step in (1000, 1025):
        write(tmp_path, step, replace(HERE, threads=7))
    for step in (25, 50, 75):
        write(tmp_path, step, replace(HERE, threads=3))
    step, words = newest(FakeRun(tmp_path, threads=3))
    assert step == 75
    assert [word.split(":")[0] for word in words[:2]] == [
        "checkpoint of step 1,025 skipped",
        "checkpoint of step 1,000 skipped",
    ]
    assert newest(FakeRun(tmp_path))[0] == 1025


def test_another_kind_of_device_skips_it(tmp_path: Path) -> None:
    """A GPU's sums are not a processor's."""
    write(tmp_path, 25, Device("gpu", "a card", 2))
    step, (said,) = newest(FakeRun(tmp_path))
    assert step is None
    assert said.endswith("made on a gpu with 2 threads, this run has a cpu with 2")


def test_another_processor_is_gone_on_with_and_said(tmp_path: Path) -> None:
    """A shared store may be used by several machines: the bytes may then differ."""
    write(tmp_path, 25, replace(HERE, name="another processor"))
    step, words = newest(FakeRun(tmp_path))
    assert step == 25
    assert words[1:] == [
        "the checkpoint is from another processor; last bits may differ on this processor"
    ]


def publishing(text: str) -> Callable[[Path], Headline]:
    def produce(folder: Path) -> Headline:
        (folder / "model.txt").write_text(text)
        return {}

    return produce


def publish_before_the_turn(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    """Have another process publish the model between the look at the store and the lease."""
    held = leases.held

    def late(*args: Any) -> Any:
        run.store.publish(KEY, (), publishing("weights"))
        return held(*args)

    monkeypatch.setattr(leases, "held", late)


def test_a_model_that_was_published_just_before_the_turn_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the store and the lease another process may have ended."""
    run: Any = FakeRun(tmp_path)
    publish_before_the_turn(monkeypatch, run)
    with checkpointing.decided(TRAIN_MODEL, run, KEY) as decision:
        assert decision.manifest is not None


def test_damage_that_another_process_mended_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The damage that was seen first says nothing about what is there when the turn comes."""
    run: Any = FakeRun(tmp_path)
    path = run.store.open(run.store.publish(KEY, (), publishing("weights")).ref) / "model.txt"
    path.write_text("damaged")
    publish_before_the_turn(monkeypatch, run)
    with checkpointing.decided(TRAIN_MODEL, run, KEY) as decision:
        assert not decision.problem
        assert decision.manifest is not None


def test_who_waits_ends_with_what_the_other_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The second training is cached, and says for whom it waited."""
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
        while "does this already; waiting for it" not in caplog.text:
            assert thread.is_alive()
        monkeypatch.setattr(planning, "_reason", lambda *_: pytest.fail("read all manifests"))
        time.sleep(0.1)
        made = run.store.publish(KEY, (), publishing("weights"))
        run.store.finish(KEY)
        thread.join(30)
    assert [decision.manifest for decision in decisions] == [made]
    assert not (run.store.checkpoints / KEY.digest).exists()


def test_only_a_step_that_resumes_waits(tmp_path: Path) -> None:
    """Loading data twice is harmless; it takes no lease."""
    run: Any = FakeRun(tmp_path)
    with checkpointing.decided(
        LOAD_DATASET, run, Key("dataset", {"step": "load_dataset"})
    ) as decision:
        assert decision.manifest is None
        assert not run.store.checkpoints.exists()


def test_finished_trainings_lose_their_checkpoints_and_others_keep_them(tmp_path: Path) -> None:
    """Also those that a killed process left behind a model that it had published."""
    run: Any = FakeRun(tmp_path)
    for step in (25, 50):
        write(tmp_path, step)
    with checkpointing.decided(TRAIN_MODEL, run, KEY):
        run.store.sweep()
        assert newest(FakeRun(tmp_path))[0] == 50
        run.store.publish(KEY, (), publishing("weights"))
        run.store.sweep()
        assert newest(FakeRun(tmp_path))[0] == 50, "its owner is still at work"
    run.store.sweep()
    assert not (run.store.checkpoints / KEY.digest).exists()
    write(tmp_path, 25)
    run.store.finish(KEY)
    assert newest(FakeRun(tmp_path)) == (None, [])


def test_the_runs_own_device_follows_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where settings are silent and TensorFlow has not started with another number."""
    from cnn.config import run as config
    from cnn.train import device
    from tasks.runtime import context as runs

    asked: list[Any] = []
    monkeypatch.setattr(device, "prepare", lambda runtime: asked.append(runtime.threads))
    for words, modules, wanted in (
        ({}, {}, 7),
        ({"threads": 3}, {}, 3),
        ({}, {"tensorflow": object()}, None),
    ):
        monkeypatch.setattr(runs, "sys", SimpleNamespace(modules=modules))
        made = runs.RunContext(config.validate({"runtime": words}), tmp_path)
        made.device(7)
        assert asked.pop() == wanted
