"""Training on a data set: repeatable to the byte, measured on all images, ended by divergence."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cnn.config.run import RecipeName
from cnn.config.training import Training
from cnn.data.dataset import Dataset, Split
from cnn.progress import Progress
from cnn.train import fit, loop, networks, recipes, schedule

pytestmark = pytest.mark.usefixtures("prepared")


def _bytes(fitted: fit.Fitted) -> list[bytes]:
    return [weight.tobytes() for weight in fitted.model.get_weights()]


def _with(dataset: Dataset, **splits: Split) -> Dataset:
    """Return the data set with other splits."""
    return replace(dataset, splits={**dataset.splits, **splits})


def _with_monstrous_image(dataset: Dataset, split: str, index: int) -> Dataset:
    """Return the data set with one image whose pixels make the loss explode."""
    images = dataset.splits[split].images.astype(np.float32)
    images[index] = 1e30
    return _with(dataset, **{split: replace(dataset.splits[split], images=images)})


@pytest.fixture(scope="module")
def augmented(small: Training) -> Training:
    """Settings with dropout and augmentation."""
    return small.model_copy(update={"augment_shift": 2.0, "augment_rotation": 10.0})


def test_two_runs_give_the_same_bytes_and_another_seed_does_not(
    digits: Dataset, augmented: Training
) -> None:
    """Weights and history are functions of data, settings and seed."""
    once, again = (fit.fit(digits, augmented, seed=5) for _ in range(2))
    other = fit.fit(digits, augmented, seed=6)
    assert _bytes(again) == _bytes(once)
    assert again.history == once.history
    assert all(a != b for a, b in zip(_bytes(other), _bytes(once), strict=True))


def test_log_points_do_not_change_the_training(digits: Dataset, augmented: Training) -> None:
    """However often, and on whichever split, progress is measured, the weights are the same."""
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
    floats = fit.fit(_with(digits, **splits), small, seed=0)
    assert _bytes(floats) == _bytes(fit.fit(digits, small, seed=0))


@pytest.fixture(scope="module")
def logged(digits: Dataset, small: Training, prepared: object) -> tuple[Training, fit.Fitted]:
    """Ten steps without dropout, with a log point every four."""
    changes = {"steps": 10, "log_every": 4, "dropout": 0.0, "schedule": "linear"}
    settings = small.model_copy(update=changes)
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
    probabilities = network.predict(split.images.astype(np.float32), verbose=0)
    return int((probabilities.argmax(axis=1) == split.labels).sum())


@pytest.mark.parametrize("log_split", ["validation", "test"])
def test_the_logged_accuracy_is_the_share_of_all_images_of_the_split(
    digits: Dataset, log_split: str
) -> None:
    """The last row's accuracy equals an independent count over every image, dropout off."""
    changes = {"precision": "float32", "steps": 12, "log_split": log_split}
    settings = recipes.FAST.model_copy(update=changes)
    fitted = fit.fit(digits, settings, seed=0)
    split, last = digits.splits[log_split], fitted.history[-1]
    assert (last.step, last.split) == (12, log_split)
    assert last.accuracy == _count_right(fitted.model, split) / len(split)
    assert 0.2 < last.accuracy < 1, "none or all right would prove nothing"


def test_training_learns(trained: fit.Fitted, digits: Dataset) -> None:
    """After 60 steps of `fast`, nine of ten test images are right."""
    test = digits.splits["test"]
    assert _count_right(trained.model, test) / len(test) > 0.9


@pytest.mark.parametrize("learning_rate", [1e6, 1e7, 1e8, 1e9])
@pytest.mark.parametrize("recipe", ["notebook", "fast"])
def test_a_training_that_diverges_ends_with_its_history(
    digits: Dataset, recipe: RecipeName, learning_rate: float
) -> None:
    """The error names step, epoch and setting; the history ends with a row for that step."""
    dataset = _with(digits, train=digits.splits["train"].take(np.arange(70)))
    changes = {"steps": 30, "learning_rate": learning_rate, "log_every": 1}
    settings = recipes.RECIPES[recipe].model_copy(update={"precision": "float32", **changes})
    with pytest.raises(fit.DivergedError, match=r"lower train\.learning_rate") as caught:
        fit.fit(dataset, settings, seed=0)
    *before, last = caught.value.history
    assert last.n_images_seen == last.step * settings.batch_size
    assert f"at step {last.step} of 30 (epoch {-(-last.n_images_seen // 70)})" in str(caught.value)
    assert (last.status, last.accuracy) == ("diverged", None)
    assert last.loss is None or np.isfinite(last.loss)
    assert before, "earlier rows are kept"
    for row in before:
        assert row.status == "ok"
        assert row.loss is not None
        assert np.isfinite(row.loss)
        assert row.step <= last.step


def test_a_divergence_ends_training_at_its_step(digits: Dataset, small: Training) -> None:
    """One monstrous image in the batch of step 6; the two steps since the log point get a row."""
    settings = small.model_copy(update={"steps": 7, "log_every": 3})
    n_images = len(digits.splits["train"])
    drawn = schedule.batches(0, n_images, settings.batch_size, 0, settings.steps)
    dataset = _with_monstrous_image(digits, "train", drawn[5, 7])
    with pytest.raises(fit.DivergedError, match=r"at step 6 of 7 \(epoch 1\)") as caught:
        fit.fit(dataset, settings, seed=0)
    rows = caught.value.history
    assert [(row.step, row.split, row.status) for row in rows] == [
        *((3, "train", "ok"), (3, "validation", "ok")),
        *((5, "train", "ok"), (6, "train", "diverged")),
    ]
    sound = fit.fit(digits, settings.model_copy(update={"log_every": 1}), seed=0).history
    each = [row for row in sound if row.split == "train" and row.step in (4, 5)]
    assert rows[2].loss == pytest.approx(np.mean([row.loss for row in each]))
    assert rows[2].accuracy == pytest.approx(np.mean([row.accuracy for row in each]))


def test_a_divergence_on_held_out_images_is_a_row_of_their_split(
    digits: Dataset, small: Training
) -> None:
    """One monstrous validation image does not mark the training split as diverged."""
    with pytest.raises(fit.DivergedError) as caught:
        fit.fit(_with_monstrous_image(digits, "validation", 3), small, seed=0)
    rows = [(row.split, row.status) for row in caught.value.history]
    assert rows == [("train", "ok"), ("validation", "diverged")]


@pytest.mark.parametrize(
    ("optimizer", "rate", "warned"),
    [("adam", 1.0, True), ("sgd", 10.0, True), ("rmsprop", 0.1, True), ("adam", 3e-3, False)],
)
def test_a_training_that_learnt_nothing_is_warned_of(
    digits: Dataset, caplog: pytest.LogCaptureFixture, optimizer: str, rate: float, warned: bool
) -> None:
    """The rate is too high for the loss to fall below chance, and too low to diverge."""
    changes = {"precision": "float32", "steps": 40, "log_every": 10, "batch_size": 32}
    settings = recipes.FAST.model_copy(
        update={**changes, "optimizer": optimizer, "learning_rate": rate}
    )
    fit.fit(digits, settings, seed=0)
    assert (f"that of guessing 2.3; lower the rate (now {rate:g})" in caplog.text) == warned


@pytest.fixture(scope="module")
def without_validation(digits: Dataset) -> Dataset:
    """Digits without validation images."""
    return _with(digits, validation=digits.splits["validation"].take(np.arange(0)))


@pytest.mark.parametrize("learning_rate", [1e6, 1e9])
@pytest.mark.parametrize("data", ["digits", "without_validation"])
def test_a_divergence_in_the_very_last_step_is_noticed(
    request: pytest.FixtureRequest, learning_rate: float, data: str
) -> None:
    """No later batch shows that the last step ruined the weights."""
    settings = recipes.SPEC.model_copy(update={"steps": 1, "learning_rate": learning_rate})
    with pytest.raises(fit.DivergedError, match="at step 1 of 1"):
        fit.fit(request.getfixturevalue(data), settings, seed=0)


def test_without_validation_images_the_history_has_only_batches(
    without_validation: Dataset, small: Training
) -> None:
    """Training works, and no row claims to have measured held-out images."""
    fitted = fit.fit(without_validation, small.model_copy(update={"log_every": 2}), seed=0)
    rows = [(row.step, row.split) for row in fitted.history]
    assert rows == [(2, "train"), (4, "train"), (6, "train")]


def test_a_batch_may_be_larger_than_the_data(
    digits: Dataset, small: Training, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch of 50 holds each of 20 images two or three times, with a warning."""
    dataset = _with(digits, train=digits.splits["train"].take(np.arange(20)))
    settings = small.model_copy(update={"batch_size": 50, "dropout": 0.0})
    fitted = fit.fit(dataset, settings, seed=0)
    row = fitted.history[0]
    assert (row.step, row.n_images_seen) == (6, 300)
    assert "train.batch_size: 50 is more than the 20 training images" in caplog.text
    assert row.accuracy is not None
    assert row.accuracy * 300 == pytest.approx(round(row.accuracy * 300))
    assert _bytes(fitted) == _bytes(fit.fit(dataset, settings, seed=0))


def test_progress_is_reported_up_to_the_last_step(digits: Dataset, small: Training) -> None:
    """Reports rise to the number of steps, by at most 25, and carry the accuracy."""
    reports: list[Progress] = []
    settings = small.model_copy(update={"steps": 250, "log_every": 150})
    fitted = fit.fit(digits, settings, seed=0, report=reports.append)
    assert {item.total for item in reports} == {250}
    assert reports[-1].done == 250
    assert all(0 < n <= 25 for n in np.diff([0, *(item.done for item in reports)]))
    assert reports[-1].figures["accuracy"] == fitted.history[-1].accuracy
