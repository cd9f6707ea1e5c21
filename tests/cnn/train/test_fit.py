"""Training from a data set: repeatable to the byte, measured honestly, ended when it diverges."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cnn.config.run import DataConfig
from cnn.config.training import Training
from cnn.data import sources
from cnn.data.dataset import Dataset, Split
from cnn.progress import Progress
from cnn.train import fit, loop, networks, order, recipes, schedule

pytestmark = pytest.mark.usefixtures("prepared")


def _bytes(fitted: fit.Fitted) -> list[bytes]:
    return [weight.tobytes() for weight in fitted.model.get_weights()]


@pytest.fixture(scope="module")
def augmented(small: Training) -> Training:
    """Settings with every kind of chance."""
    return small.model_copy(update={"augment_shift": 2.0, "augment_rotation": 10.0})


def test_two_runs_give_the_same_bytes_and_another_seed_others(
    digits: Dataset, augmented: Training
) -> None:
    """Weights and history are functions of data, settings and seed."""
    once, again = (fit.fit(digits, augmented, seed=5) for _ in range(2))
    other = fit.fit(digits, augmented, seed=6)
    assert _bytes(again) == _bytes(once)
    assert again.history == once.history
    assert all(a != b for a, b in zip(_bytes(other), _bytes(once), strict=True))


SCRIPT = """
import hashlib, pathlib, sys, tempfile
from cnn.config.run import DataConfig
from cnn.config.run import RuntimeConfig
from cnn.config.training import Training
from cnn.data import sources
from cnn.train import device, fit
device.prepare(RuntimeConfig())
config = DataConfig(source="digits")
downloads = pathlib.Path(tempfile.gettempdir())
digits = sources.load(sources.identify(config, downloads), config)
fitted = fit.fit(digits, Training.model_validate_json(sys.argv[1]), seed=5)
print(hashlib.sha256(b"".join(w.tobytes() for w in fitted.model.get_weights())).hexdigest())
"""


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(digits: Dataset, augmented: Training) -> None:
    """Nothing that differs between processes reaches the weights."""
    command = [sys.executable, "-c", SCRIPT, augmented.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    here = hashlib.sha256(b"".join(_bytes(fit.fit(digits, augmented, seed=5)))).hexdigest()
    assert done.stdout.split()[-1] == here


def test_log_points_do_not_change_the_training(digits: Dataset, augmented: Training) -> None:
    """Weights are the same, however often and on whichever images progress is measured."""
    plain = fit.fit(digits, augmented, seed=0)
    for changes in ({"log_every": 1}, {"log_every": 4, "log_split": "test"}):
        watched = fit.fit(digits, augmented.model_copy(update=changes), seed=0)
        assert len(watched.history) > len(plain.history)
        assert _bytes(watched) == _bytes(plain)


def test_pixels_of_either_type_train_alike(digits: Dataset, small: Training) -> None:
    """The same pixels as float32 give the same weights as uint8."""
    splits = {
        name: replace(split, images=split.images.astype(np.float32))
        for name, split in digits.splits.items()
    }
    floats = fit.fit(replace(digits, splits=splits), small, seed=0)
    assert _bytes(floats) == _bytes(fit.fit(digits, small, seed=0))


@pytest.fixture(scope="module")
def logged(digits: Dataset, small: Training, prepared: object) -> tuple[Training, fit.Fitted]:
    """Ten steps without dropout, a log point every four."""
    settings = small.model_copy(
        update={"steps": 10, "log_every": 4, "dropout": 0.0, "schedule": "linear"}
    )
    return settings, fit.fit(digits, settings, seed=0)


def test_the_history_has_a_row_for_both_splits_at_each_log_point(
    logged: tuple[Training, fit.Fitted],
) -> None:
    """Steps, images seen, splits, learning rates and status of every row."""
    settings, fitted = logged
    rates = schedule.learning_rates(settings, 0, 10)
    assert [
        (row.step, row.n_images_seen, row.split, row.learning_rate, row.status)
        for row in fitted.history
    ] == [
        (step, 32 * step, split, rates[step - 1], "ok")
        for step in (4, 8, 10)
        for split in ("train", "validation")
    ]


def test_logged_batch_figures_are_those_of_the_steps_since_the_last_log_point(
    digits: Dataset, logged: tuple[Training, fit.Fitted]
) -> None:
    """Accuracy is hits over images, loss the mean over steps, of steps 1-4, 5-8 and 9-10."""
    settings, fitted = logged
    train = digits.splits["train"]
    network = networks.build(settings, digits.image_shape, 10, 0)
    block = loop.Loop(network, settings, 0, train.images, train.labels).run(0, 10)
    rows = [row for row in fitted.history if row.split == "train"]
    for row, part in zip(rows, (slice(0, 4), slice(4, 8), slice(8, 10)), strict=True):
        hits, losses = block.n_correct[part], block.losses[part]
        assert row.accuracy == hits.sum() / (32 * len(hits))
        assert row.loss == pytest.approx(losses.mean(dtype=np.float64), rel=1e-6)


def _count_right(network: Any, split: Split) -> int:
    found = network.predict(split.images.astype(np.float32), verbose=0)
    return int((found.argmax(axis=1) == split.labels).sum())


@pytest.mark.parametrize("log_split", ["validation", "test"])
def test_the_logged_accuracy_is_the_share_of_all_images_of_the_split(
    digits: Dataset, log_split: str
) -> None:
    """The last row's accuracy equals an independent count over every image, dropout off."""
    settings = recipes.FAST.model_copy(
        update={"precision": "float32", "steps": 12, "log_split": log_split}
    )
    fitted = fit.fit(digits, settings, seed=0)
    split, last = digits.splits[log_split], fitted.history[-1]
    assert (last.step, last.split) == (12, log_split)
    assert last.accuracy == _count_right(fitted.model, split) / len(split)
    assert 0.2 < last.accuracy < 1, "a count at either end would show nothing"


def test_training_learns(trained: fit.Fitted, digits: Dataset) -> None:
    """60 steps of `fast` get nine of ten test images right."""
    test = digits.splits["test"]
    assert _count_right(trained.model, test) / len(test) > 0.9


@pytest.mark.parametrize("learning_rate", [1e6, 1e7, 1e8, 1e9])
@pytest.mark.parametrize("recipe", ["notebook", "fast"])
def test_a_training_that_diverges_ends_with_its_history(
    digits: Dataset, recipe: str, learning_rate: float
) -> None:
    """The error names step and setting; the history ends with that step, marked diverged."""
    changes = {"steps": 30, "learning_rate": learning_rate, "log_every": 1}
    settings = recipes.RECIPES[recipe].model_copy(update={"precision": "float32", **changes})
    with pytest.raises(fit.DivergedError, match=r"lower train\.learning_rate") as caught:
        fit.fit(digits, settings, seed=0)
    *before, last = caught.value.history
    assert f"at step {last.step} of 30" in str(caught.value)
    assert (last.status, last.accuracy) == ("diverged", None)
    assert last.n_images_seen == last.step * settings.batch_size
    assert last.loss is None or np.isfinite(last.loss)
    assert before, "what was measured before is kept"
    assert {row.status for row in before} == {"ok"}
    assert max(row.step for row in before) <= last.step


def _with_monstrous_batch(digits: Dataset, settings: Training, step: int) -> Dataset:
    """Return digits with an image of monstrous pixels in the batch of a step."""
    train = digits.splits["train"]
    drawn = order.batches(0, len(train), settings.batch_size, 0, settings.steps)
    images = train.images.astype(np.float32)
    images[drawn[step - 1, 7]] = 1e30
    return replace(digits, splits={**digits.splits, "train": replace(train, images=images)})


def test_the_step_named_is_the_one_that_went_astray(digits: Dataset, small: Training) -> None:
    """One image of monstrous pixels: training ends at the very step whose batch holds it."""
    settings = small.model_copy(update={"log_every": 2})
    with pytest.raises(fit.DivergedError, match=r"at step 5 of 6 \(epoch 1\)") as caught:
        fit.fit(_with_monstrous_batch(digits, settings, 5), settings, seed=0)
    assert [(row.step, row.status) for row in caught.value.history] == [
        (2, "ok"),
        (2, "ok"),
        (4, "ok"),
        (4, "ok"),
        (5, "diverged"),
    ]


def test_what_was_measured_since_the_last_log_point_is_kept(
    digits: Dataset, small: Training
) -> None:
    """The batches before the diverged step have their row, up to the step before it."""
    with pytest.raises(fit.DivergedError) as caught:
        fit.fit(_with_monstrous_batch(digits, small, 5), small, seed=0)
    kept, diverged = caught.value.history
    assert (diverged.step, diverged.status) == (5, "diverged")
    assert (kept.step, kept.split, kept.status) == (4, "train", "ok")
    sound = fit.fit(digits, small.model_copy(update={"log_every": 1}), seed=0).history
    each = [row for row in sound if row.split == "train" and row.step <= 4]
    assert kept.loss == pytest.approx(np.mean([row.loss for row in each]))
    assert kept.accuracy == pytest.approx(np.mean([row.accuracy for row in each]))


def test_held_out_images_that_diverge_are_marked_as_such(digits: Dataset, small: Training) -> None:
    """One of monstrous pixels: the diverged row is of their split, not of the training's."""
    images = digits.splits["validation"].images.astype(np.float32)
    images[3] = 1e30
    split = replace(digits.splits["validation"], images=images)
    with pytest.raises(fit.DivergedError) as caught:
        fit.fit(replace(digits, splits={**digits.splits, "validation": split}), small, seed=0)
    assert [(row.split, row.status) for row in caught.value.history] == [
        ("train", "ok"),
        ("validation", "diverged"),
    ]


@pytest.mark.parametrize(
    ("optimizer", "rate", "said"),
    [("adam", 1.0, True), ("sgd", 10.0, True), ("rmsprop", 0.1, True), ("adam", 3e-3, False)],
)
def test_a_training_that_learnt_nothing_is_said(
    digits: Dataset, caplog: pytest.LogCaptureFixture, optimizer: str, rate: float, said: bool
) -> None:
    """A rate that is too high for the loss to fall below chance, and not enough to diverge."""
    changes = {"precision": "float32", "steps": 40, "log_every": 10, "batch_size": 32}
    settings = recipes.FAST.model_copy(
        update={**changes, "optimizer": optimizer, "learning_rate": rate}
    )
    fit.fit(digits, settings, seed=0)
    words = f"chance alone has 2.3: lower the rate, {rate:g} now"
    assert (words in caplog.text) == said


def test_no_row_marked_ok_has_a_loss_that_is_no_number(digits: Dataset) -> None:
    """Held-out images are measured with ruined weights: that row must not pass for a result."""
    changes = {"precision": "float32", "steps": 30, "learning_rate": 1e9, "log_every": 1}
    with pytest.raises(fit.DivergedError) as caught:
        fit.fit(digits, recipes.FAST.model_copy(update=changes), seed=0)
    for row in caught.value.history:
        assert row.status == "diverged" or (row.loss is not None and np.isfinite(row.loss)), row


@pytest.mark.parametrize("learning_rate", [1e6, 1e9])
@pytest.mark.parametrize("validation_fraction", [0.0, 0.1])
def test_weights_ruined_by_the_very_last_step_are_noticed(
    learning_rate: float, validation_fraction: float, tmp_path: Any
) -> None:
    """No later batch shows that the last step went astray; the training must not end well."""
    config = DataConfig(source="digits", validation_fraction=validation_fraction)
    dataset = sources.load(sources.identify(config, tmp_path), config)
    changes = {"steps": 1, "learning_rate": learning_rate}
    with pytest.raises(fit.DivergedError, match="at step 1 of 1"):
        fit.fit(dataset, recipes.SPEC.model_copy(update=changes), seed=0)


def test_an_empty_validation_split_leaves_only_batches_in_the_history(
    small: Training, tmp_path: Any
) -> None:
    """Without held-out images training works, and no row claims to have measured any."""
    config = DataConfig(source="digits", validation_fraction=0.0)
    dataset = sources.load(sources.identify(config, tmp_path), config)
    assert len(dataset.splits["validation"]) == 0
    fitted = fit.fit(dataset, small.model_copy(update={"log_every": 2}), seed=0)
    assert [(row.step, row.split) for row in fitted.history] == [
        (2, "train"),
        (4, "train"),
        (6, "train"),
    ]


def test_a_batch_may_be_larger_than_the_data(
    digits: Dataset, small: Training, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch of 50 from 20 images holds some of them three times; it is said."""
    few = digits.splits["train"].take(np.arange(20))
    dataset = replace(digits, splits={**digits.splits, "train": few})
    settings = small.model_copy(update={"batch_size": 50, "dropout": 0.0})
    fitted = fit.fit(dataset, settings, seed=0)
    row = fitted.history[0]
    assert (row.step, row.n_images_seen) == (6, 300)
    assert "train.batch_size: 50 is more than the 20 training images" in caplog.text
    assert row.accuracy is not None
    assert row.accuracy * 300 == pytest.approx(round(row.accuracy * 300))
    assert _bytes(fitted) == _bytes(fit.fit(dataset, settings, seed=0))


def _blocks(reports: list[Progress]) -> Iterator[int]:
    before = 0
    for item in reports:
        yield item.done - before
        before = item.done


def test_progress_is_reported_up_to_the_last_step(digits: Dataset, small: Training) -> None:
    """Reports rise to the number of steps, never more than 25 at once, and carry the accuracy."""
    reports: list[Progress] = []
    settings = small.model_copy(update={"steps": 250, "log_every": 150})
    fitted = fit.fit(digits, settings, seed=0, report=reports.append)
    assert {item.total for item in reports} == {250}
    assert reports[-1].done == 250
    assert all(0 < n_steps <= 25 for n_steps in _blocks(reports))
    assert reports[-1].figures["accuracy"] == fitted.history[-1].accuracy
