"""A training that goes on from a checkpoint ends with the bytes of one that never stopped."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn.config.training import Training
from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError
from cnn.train import checkpoints, fit, loop, networks, order, precision, recipes
from cnn.train.device import Device

pytestmark = pytest.mark.usefixtures("prepared")

SMALL = {"conv1_filters": 2, "conv2_filters": 3, "dense1_units": 6, "batch_size": 32}
VARIANTS: dict[str, Training] = {
    "fast, all chance": recipes.FAST.model_copy(
        update={
            **SMALL,
            "precision": "float32",
            "steps": 13,
            "log_every": 5,
            "augment_shift": 2.0,
            "augment_rotation": 10.0,
            "augment_scale": 0.1,
        }
    ),
    "notebook, batches over epochs": recipes.NOTEBOOK.model_copy(
        update={**SMALL, "steps": 8, "batch_size": 1000, "log_every": 6}
    ),
    "spec, no dropout, no log point between": recipes.SPEC.model_copy(
        update={**SMALL, "steps": 9, "dropout": 0.0, "log_every": 100}
    ),
    "sgd, averaged, smoothed, one cycle": recipes.FAST.model_copy(
        update={
            **SMALL,
            "precision": "float32",
            "steps": 9,
            "log_every": 5,
            "optimizer": "sgd",
            "schedule": "one-cycle",
            "label_smoothing": 0.1,
            "ema_decay": 0.9,
            "augment_shear": 10.0,
        }
    ),
    "rmsprop, decay, bfloat16": recipes.SPEC.model_copy(
        update={
            **SMALL,
            "steps": 9,
            "optimizer": "rmsprop",
            "weight_decay": 0.1,
            "precision": "bfloat16",
        }
    ),
    "best, a log point each step": recipes.BEST.model_copy(
        update={
            **SMALL,
            "precision": "float32",
            "steps": 5,
            "log_every": 1,
            "log_split": "test",
        }
    ),
}
CPU = Device("cpu", "this", 2)


def digest(fitted: fit.Fitted) -> str:
    return hashlib.sha256(b"".join(w.tobytes() for w in fitted.model.get_weights())).hexdigest()


class Stopped(Exception):  # noqa: N818
    """Ends a training, like a kill."""


def stop_at(folder: Path, step: int) -> Callable[[Callable[[], fit.TrainingState]], None]:
    """Return the callback that writes the checkpoint of a step and ends the training there."""

    def keep(capture: Callable[[], fit.TrainingState]) -> None:
        state = capture()
        if state.step == step:
            checkpoints.write(folder, state, CPU)
            raise Stopped

    return keep


def reread(folder: Path, state: fit.TrainingState) -> fit.TrainingState:
    return checkpoints.read(checkpoints.write(folder, state, CPU)).state


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of four steps at most, so that few steps have several kinds of ends."""
    monkeypatch.setattr(fit, "_LONGEST_BLOCK", 4)


def keep_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all trainings from now on share the first one's network and graph, which cost a second.

    A state that were not complete would let the one training show through in the next.
    """
    made: dict[str, Any] = {}
    build, make = networks.build, loop.Loop
    monkeypatch.setattr(fit.networks, "build", lambda *a: made.setdefault("model", build(*a)))
    monkeypatch.setattr(
        fit.loop,
        "Loop",
        lambda *a: made["loop"] if "loop" in made else made.setdefault("loop", make(*a)),
    )


@pytest.mark.parametrize(
    "name",
    [next(iter(VARIANTS)), *(pytest.param(n, marks=pytest.mark.slow) for n in [*VARIANTS][1:])],
)
def test_stopped_at_any_block_end_it_ends_with_the_same_bytes(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Weights and history, from each state as it was written and read again."""
    settings, states = VARIANTS[name], list[fit.TrainingState]()
    keep_graph(monkeypatch)
    whole = fit.fit(digits, settings, seed=3, keep=lambda capture: states.append(capture()))
    wanted = digest(whole)
    ends = [state.step for state in states]
    assert len(ends) >= 2
    assert settings.steps not in ends, "the last block's end needs no checkpoint"
    for state in states:
        resumed = fit.fit(digits, settings, seed=3, state=reread(tmp_path, state))
        assert digest(resumed) == wanted, f"from step {state.step}"
        assert resumed.history == whole.history
    assert digest(fit.fit(digits, settings, seed=3, state=states[0])) == wanted


def test_a_stopped_training_goes_on_in_a_network_of_its_own(
    digits: Dataset, small: Training, tmp_path: Path
) -> None:
    """Interrupted for real, and gone on with nothing but the file."""
    settings = small.model_copy(update={"steps": 7, "log_every": 3})
    whole = fit.fit(digits, settings, seed=1)
    with pytest.raises(Stopped):
        fit.fit(digits, settings, seed=1, keep=stop_at(tmp_path / "key", 3))
    found, _ = checkpoints.newest(tmp_path / "key")
    assert found is not None
    resumed = fit.fit(digits, settings, seed=1, state=found.state)
    assert digest(resumed) == digest(whole)
    assert resumed.history == whole.history


def test_stopped_twice_it_ends_with_the_same_bytes(
    digits: Dataset, small: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of a resumed training is as good as one of a whole one."""
    settings = small.model_copy(update={"steps": 14, "log_every": 5})
    keep_graph(monkeypatch)
    states: dict[int, fit.TrainingState] = {}

    def note(capture: Callable[[], fit.TrainingState]) -> None:
        states.setdefault(capture().step, capture())

    whole = fit.fit(digits, settings, seed=1, keep=note)
    wanted, state = digest(whole), reread(tmp_path, states[4])
    for step in (9, 10):
        with pytest.raises(Stopped):
            fit.fit(digits, settings, 1, state=state, keep=stop_at(tmp_path, step))
        found, _ = checkpoints.newest(tmp_path)
        assert found is not None
        state = found.state
        assert (state.step, state.sums, state.history) == (
            step,
            states[step].sums,
            states[step].history,
        )
        assert all((a == b).all() for a, b in zip(state.arrays, states[step].arrays, strict=True))
    resumed = fit.fit(digits, settings, seed=1, state=state)
    assert digest(resumed) == wanted
    assert resumed.history == whole.history


def test_a_state_is_not_changed_by_the_training_that_goes_on(
    digits: Dataset, small: Training
) -> None:
    """What was captured stays as it was while weights and history move on."""
    states: list[fit.TrainingState] = []
    settings = small.model_copy(update={"steps": 9, "log_every": 3})
    fit.fit(digits, settings, seed=0, keep=lambda capture: states.append(capture()))
    assert [state.step for state in states] == [3, 6]
    assert [len(state.history) for state in states] == [2, 4]
    assert any((a != b).any() for a, b in zip(states[0].arrays, states[1].arrays, strict=True))


def test_diverging_after_a_resume_keeps_the_whole_history(
    digits: Dataset, small: Training, tmp_path: Path
) -> None:
    """The rows from before the interruption stand before the one that ended it."""
    train = digits.splits["train"]
    drawn = order.batches(0, len(train), small.batch_size, 0, 8)
    images = train.images.astype(np.float32)
    images[drawn[6, 3]] = 1e30
    dataset = replace(digits, splits={**digits.splits, "train": replace(train, images=images)})
    settings = small.model_copy(update={"steps": 8, "log_every": 2})
    states: list[fit.TrainingState] = []
    with pytest.raises(fit.DivergedError) as whole:
        fit.fit(dataset, settings, seed=0, keep=lambda capture: states.append(capture()))
    with pytest.raises(fit.DivergedError) as resumed:
        fit.fit(dataset, settings, seed=0, state=reread(tmp_path, states[1]))
    assert states[1].step == 4
    assert resumed.value.history == whole.value.history
    assert str(resumed.value) == str(whole.value)
    assert [row.step for row in resumed.value.history] == [2, 2, 4, 4, 6, 6, 7]


def test_a_state_of_another_network_is_refused(digits: Dataset, small: Training) -> None:
    """Before a step is taken with it."""
    states: list[fit.TrainingState] = []
    settings = small.model_copy(update={"log_every": 3})
    fit.fit(digits, settings, seed=0, keep=lambda capture: states.append(capture()))
    wider = settings.model_copy(update={"dense1_units": 9})
    with pytest.raises(ArtifactError, match="another network"):
        fit.fit(digits, wider, seed=0, state=states[0])


SCRIPT = """
import hashlib, json, pathlib, sys, tempfile
from cnn.config.run import DataConfig
from cnn.config.run import RuntimeConfig
from cnn.config.training import Training
from cnn.data import sources
from cnn.train import checkpoints, device, fit
device.prepare(RuntimeConfig(threads=2))
config = DataConfig(source="digits")
downloads = pathlib.Path(tempfile.gettempdir())
digits = sources.load(sources.identify(config, downloads), config)
fit._LONGEST_BLOCK = 4
found, _ = checkpoints.newest(pathlib.Path(sys.argv[2]))
def keep(capture):
    state = capture()
    if state.step == int(sys.argv[3]):
        checkpoints.write(pathlib.Path(sys.argv[2]), state, device.Device("cpu", "x", 2))
        sys.exit()
settings = Training.model_validate_json(sys.argv[1])
fitted = fit.fit(digits, settings, 5, state=found.state if found else None, keep=keep)
weights = b"".join(w.tobytes() for w in fitted.model.get_weights())
print(json.dumps([hashlib.sha256(weights).hexdigest(), repr(fitted.history)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["best"])
def test_across_processes_a_recipe_goes_on_exactly(tmp_path: Path, recipe: str) -> None:
    """Networks of full size, two interruptions, each part in an interpreter of its own."""
    shortened = recipes.RECIPES[recipe].model_copy(update={"steps": 12, "log_every": 5})
    settings = precision.resolved(shortened)

    def run(folder: str, stop: int) -> Any:
        words = [settings.model_dump_json(), str(tmp_path / folder), str(stop)]
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout.splitlines()[-1]) if done.stdout else None

    whole = run("none", 0)
    assert run("parts", 4) is None
    assert run("parts", 10) is None
    assert run("parts", 0) == whole
