"""A training resumed from a checkpoint ends with the bytes of an uninterrupted one."""

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

from cnn.config.run import RecipeName
from cnn.config.training import Training
from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError
from cnn.train import checkpoints, fit, loop, networks, precision, recipes, schedule
from cnn.train.device import Device

pytestmark = pytest.mark.usefixtures("prepared")

SMALL = {"conv1_filters": 2, "conv2_filters": 3, "dense1_units": 6, "batch_size": 32}
VARIANTS: dict[str, tuple[RecipeName, dict[str, Any]]] = {
    "fast, dropout and augmentation": (
        "fast",
        {
            **{"steps": 13, "log_every": 5, "dropout": 0.3},
            **{"augment_shift": 2.0, "augment_rotation": 10.0, "augment_scale": 0.1},
        },
    ),
    "notebook, batches over epochs": ("notebook", {"steps": 8, "batch_size": 1000, "log_every": 6}),
    "spec, no dropout, no log point between": (
        "spec",
        {"steps": 9, "dropout": 0.0, "log_every": 100},
    ),
    "sgd, averaged, smoothed, one cycle": (
        "fast",
        {
            **{"steps": 9, "log_every": 5, "optimizer": "sgd", "schedule": "one-cycle"},
            **{"label_smoothing": 0.1, "ema_decay": 0.9, "augment_shear": 10.0},
        },
    ),
    "rmsprop, decay, bfloat16": (
        "spec",
        {"steps": 9, "optimizer": "rmsprop", "weight_decay": 0.1, "precision": "bfloat16"},
    ),
    "best, a log point each step": ("best", {"steps": 5, "log_every": 1, "log_split": "test"}),
}
CPU = Device("cpu", "this", 2)


def digest(fitted: fit.Fitted) -> str:
    return hashlib.sha256(b"".join(w.tobytes() for w in fitted.model.get_weights())).hexdigest()


class Stopped(Exception):  # noqa: N818
    """Ends a training like a kill."""


def stop_at(folder: Path, step: int) -> fit.Keep:
    """Return a callback that writes the checkpoint of one step and ends the training there."""

    def keep(capture: Callable[[], fit.TrainingState]) -> None:
        state = capture()
        if state.step == step:
            checkpoints.write(folder, state, CPU)
            raise Stopped

    return keep


def states_of(
    dataset: Dataset, settings: Training, seed: int = 0
) -> tuple[fit.Fitted, list[fit.TrainingState]]:
    """Return an uninterrupted training, and its state at each block's end."""
    states: list[fit.TrainingState] = []
    fitted = fit.fit(dataset, settings, seed, keep=lambda capture: states.append(capture()))
    return fitted, states


def assert_same(resumed: fit.Fitted, whole: fit.Fitted) -> None:
    assert digest(resumed) == digest(whole)
    assert resumed.history == whole.history


def reread(folder: Path, state: fit.TrainingState) -> fit.TrainingState:
    return checkpoints.read(checkpoints.write(folder, state, CPU)).state


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit blocks to four steps, so that a short training has several blocks."""
    monkeypatch.setattr(fit, "_LONGEST_BLOCK", 4)


def keep_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all trainings share the first one's network and graph, which take a second to build.

    If a state were incomplete, one training would show through in the next.
    """
    shared: dict[str, Any] = {}
    build, loop_class = networks.build, loop.Loop
    monkeypatch.setattr(fit.networks, "build", lambda *a: shared.setdefault("model", build(*a)))
    monkeypatch.setattr(
        fit.loop,
        "Loop",
        lambda *a: shared.get("loop") or shared.setdefault("loop", loop_class(*a)),
    )


@pytest.mark.parametrize(
    "name",
    [next(iter(VARIANTS)), *(pytest.param(n, marks=pytest.mark.slow) for n in [*VARIANTS][1:])],
)
def test_resumed_at_any_block_end_it_ends_with_the_same_bytes(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Weights and history, from each state as written to a file and read again."""
    recipe, changes = VARIANTS[name]
    changes = {"precision": "float32", **SMALL, **changes}
    settings = recipes.RECIPES[recipe].model_copy(update=changes)
    keep_graph(monkeypatch)
    whole, states = states_of(digits, settings, seed=3)
    expected = digest(whole)
    ends = [state.step for state in states]
    assert len(ends) >= 2
    assert settings.steps not in ends, "the last block's end needs no checkpoint"
    for state in states:
        resumed = fit.fit(digits, settings, seed=3, state=reread(tmp_path, state))
        assert digest(resumed) == expected, f"from step {state.step}"
        assert resumed.history == whole.history
    assert digest(fit.fit(digits, settings, seed=3, state=states[0])) == expected


def test_a_killed_training_resumes_in_a_network_of_its_own(
    digits: Dataset, small: Training, tmp_path: Path
) -> None:
    """Twice interrupted for real, and each time resumed from nothing but the file."""
    settings = small.model_copy(update={"steps": 12, "log_every": 5})
    whole, states = states_of(digits, settings, seed=1)
    state = None
    for step in (4, 9):
        with pytest.raises(Stopped):
            fit.fit(digits, settings, 1, state=state, keep=stop_at(tmp_path / "key", step))
        found, _ = checkpoints.newest(tmp_path / "key")
        assert found is not None
        state = found.state
        (expected,) = (state for state in states if state.step == step)
        assert (state.step, state.sums, state.history) == (step, expected.sums, expected.history)
        assert all((a == b).all() for a, b in zip(state.arrays, expected.arrays, strict=True))
    assert_same(fit.fit(digits, settings, seed=1, state=state), whole)


def test_diverging_after_a_resume_keeps_the_whole_history(
    digits: Dataset, small: Training, tmp_path: Path
) -> None:
    """The rows from before the interruption precede the one that ended the training."""
    train = digits.splits["train"]
    drawn = schedule.batches(0, len(train), small.batch_size, 0, 8)
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
    settings = small.model_copy(update={"log_every": 3})
    _, states = states_of(digits, settings)
    wider = settings.model_copy(update={"dense1_units": 9})
    with pytest.raises(ArtifactError, match="belongs to another network"):
        fit.fit(digits, wider, seed=0, state=states[0])


SCRIPT = """
import hashlib, json, pathlib, sys, tempfile
from cnn.config.run import DataConfig, RuntimeConfig
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
def test_a_recipe_resumes_exactly_across_processes(tmp_path: Path) -> None:
    """A network of full size, interrupted twice, each part in an interpreter of its own."""
    shortened = recipes.BEST.model_copy(update={"steps": 12, "log_every": 5})
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
