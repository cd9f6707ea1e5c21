"""Train a model on a data set: the work of the step train_model."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnn import progress
from cnn.config.training import Training
from cnn.data.dataset import Dataset
from cnn.errors import TrainingError
from cnn.model_io.keras_types import Model
from cnn.train import loop, networks, schedule

log = logging.getLogger(__name__)

_LONGEST_BLOCK = 25  # steps; short enough for steady progress reports, long enough to cost no time
_N_TRAIN_WATCHED = 1000  # images
_LARGEST_LOSS = 1e6  # nats; beyond it the units are dead, and training does not recover


@dataclass(frozen=True)
class LogPoint:
    """One row of the history: loss and accuracy on one split after some steps.

    loss: mean cross-entropy, nats. A row with the status "diverged" has no accuracy, and no
    loss if that is not finite.
    """

    step: int
    n_images_seen: int
    split: str
    loss: float | None
    accuracy: float | None
    learning_rate: float
    status: str = "ok"


@dataclass(frozen=True)
class TrainingState:
    """The state of a training between two blocks: everything needed to resume it exactly.

    arrays: weights, optimizer slots and moving averages, float32. sums: loss, hits and steps
    since the last log point.
    """

    step: int
    arrays: list[NDArray[np.float32]]
    sums: tuple[float, int, int]
    history: list[LogPoint]


Keep = Callable[[Callable[[], TrainingState]], None]


def keep_nothing(capture: Callable[[], TrainingState]) -> None:
    """Do nothing: the callback for a training without checkpoints."""


@dataclass(frozen=True)
class Fitted:
    """A trained keras.Model and its history."""

    model: Model
    history: list[LogPoint]


class DivergedError(TrainingError):
    """The loss is not finite, or too large to recover; `history` holds the rows until then."""

    def __init__(self, message: str, history: list[LogPoint]) -> None:
        """Set the message and the history."""
        super().__init__(message)
        self.history = history


def fit(
    dataset: Dataset,
    settings: Training,
    seed: int,
    report: progress.Report = progress.ignore,
    state: TrainingState | None = None,
    keep: Keep = keep_nothing,
    xla: bool = False,
) -> Fitted:
    """Return the model trained on the training images, and its history.

    Each log point adds a row for the training batches since the previous one, with dropout,
    and a row for all images of `settings.log_split`, without. Given a `state`, training
    resumes there and ends with the same result. After each block but the last, `keep`
    receives a function that captures the state. `xla`: see loop.Loop.

    Raises DivergedError at the first step whose loss is not finite or above _LARGEST_LOSS,
    TrainingError if the device's memory is too small, and ArtifactError if the state belongs
    to another network.
    """
    train = dataset.splits["train"]
    _warn_of_large_batch(settings, len(train))
    network = networks.build(settings, dataset.image_shape, len(dataset.class_names), seed)
    with _memory_faults(settings):
        training = loop.Loop(network, settings, seed, train.images, train.labels, xla)
        run = _Trainer(dataset, settings, training, report)
        if state:
            run.restore(state)
        for first_step, n_steps in _blocks(settings, state.step if state else 0):
            run.train(first_step, n_steps)
            if first_step + n_steps < settings.steps:
                keep(run.state)
        training.finish()
    _warn_of_nothing_learnt(run.history, settings, len(dataset.class_names))
    return Fitted(network, run.history)


def _warn_of_large_batch(settings: Training, n_images: int) -> None:
    if settings.batch_size > n_images:
        log.warning(
            "train.batch_size: %d is more than the %s training images, so each batch repeats "
            "some of them",
            settings.batch_size,
            f"{n_images:,}",
        )


def _warn_of_nothing_learnt(history: list[LogPoint], settings: Training, n_classes: int) -> None:
    """Warn if the last training batches did worse than guessing."""
    chance = math.log(n_classes)
    last = next(point for point in reversed(history) if point.split == "train")
    if last.loss is not None and last.loss > chance:
        log.warning(
            "train.learning_rate: the model learnt nothing: the loss of the last batches is %.3g, "
            "that of guessing %.3g; lower the rate (now %g) or train for more steps",
            last.loss,
            chance,
            settings.learning_rate,
        )


@contextmanager
def _memory_faults(settings: Training) -> Iterator[None]:
    """Turn TensorFlow's error for exhausted memory into TrainingError."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        lines = error.message.splitlines()
        reason = next((line.strip() for line in lines if "OOM" in line), lines[0])
        raise TrainingError(
            f"train.batch_size: the device's memory is too small for the training images and a "
            f"batch of {settings.batch_size}; lower the batch size ({reason})"
        ) from None


def _blocks(settings: Training, step: int) -> Iterator[tuple[int, int]]:
    """Yield first step and number of steps of each block from `step` on.

    Blocks end at log points. A training that resumes at a block's end has the same blocks.
    """
    while step < settings.steps:
        to_log_point = settings.log_every - step % settings.log_every
        n_steps = min(to_log_point, settings.steps - step, _LONGEST_BLOCK)
        yield step, n_steps
        step += n_steps


class _Trainer:
    """A training in progress: sums since the last log point, and the history."""

    def __init__(
        self, dataset: Dataset, settings: Training, training: loop.Loop, report: progress.Report
    ) -> None:
        self.history: list[LogPoint] = []
        self._settings, self._loop, self._report = settings, training, report
        self._n_train = len(dataset.splits["train"])
        # If the log split is empty, training images show whether the last step diverged.
        self._watched_split = settings.log_split if dataset.splits[settings.log_split] else "train"
        watched = dataset.splits[self._watched_split]
        n = None if self._watched_split != "train" else _N_TRAIN_WATCHED
        self._watched = loop.hold(watched.images[:n], watched.labels[:n])
        self._loss, self._n_correct, self._n_steps = 0.0, 0, 0
        self._step = 0

    def state(self) -> TrainingState:
        """Return the current state, with copies of the arrays."""
        sums = (self._loss, self._n_correct, self._n_steps)
        return TrainingState(self._step, self._loop.arrays(), sums, list(self.history))

    def restore(self, state: TrainingState) -> None:
        """Resume from a state. Raises ArtifactError if it belongs to another network."""
        self._loop.restore(state.arrays)
        self._step, self.history = state.step, list(state.history)
        self._loss, self._n_correct, self._n_steps = state.sums

    def train(self, first_step: int, n_steps: int) -> None:
        """Train one block, and log if it ends at a log point."""
        started = time.monotonic()
        block = self._loop.run(first_step, n_steps)
        seconds = time.monotonic() - started
        sound = block.losses <= _LARGEST_LOSS
        if not sound.all():
            i = int(np.argmin(sound))
            self._count(block, i)
            if self._n_steps:
                self._add_batches(first_step + i)
            self._diverge(first_step + i + 1, float(block.losses[i]), "train")
        self._count(block, n_steps)
        self._step = done = first_step + n_steps
        if done % self._settings.log_every == 0 or done == self._settings.steps:
            self._log(done)
        figures = {"images_per_second": n_steps * self._settings.batch_size / seconds}
        if self.history:
            figures["accuracy"] = self.history[-1].accuracy or 0.0
        self._report(progress.Progress(done, self._settings.steps, figures))

    def _count(self, block: loop.Block, n_steps: int) -> None:
        """Add the first n_steps of a block to the sums."""
        self._loss += float(block.losses[:n_steps].sum(dtype=np.float64))
        self._n_correct += int(block.n_correct[:n_steps].sum())
        self._n_steps += n_steps

    def _add_batches(self, step: int) -> LogPoint:
        """Add a row for the training batches since the last log point, up to `step`."""
        n_images = self._n_steps * self._settings.batch_size
        train = self._add(step, "train", self._loss / self._n_steps, self._n_correct / n_images)
        self._loss, self._n_correct, self._n_steps = 0.0, 0, 0
        return train

    def _log(self, step: int) -> None:
        train = self._add_batches(step)
        parts = [
            f"step {step}: batch accuracy {train.accuracy:.4f}, loss {train.loss:.4f}",
            f"learning rate {train.learning_rate:.2g}",
        ]
        loss, n_correct = self._loop.evaluate(*self._watched)
        if not loss <= _LARGEST_LOSS:
            self._diverge(step, loss, self._watched_split)
        if self._watched_split != "train":
            accuracy = n_correct / len(self._watched[1])
            self._add(step, self._watched_split, loss, accuracy)
            parts.append(f"{self._watched_split} accuracy {accuracy:.4f}")
        log.info("%s", ", ".join(parts))

    def _diverge(self, step: int, loss: float, split: str) -> None:
        self._add(step, split, loss if np.isfinite(loss) else None, None, "diverged")
        epoch = (step * self._settings.batch_size - 1) // self._n_train + 1
        raise DivergedError(
            f"training diverged: the loss is {loss:.3g} at step {step} of {self._settings.steps} "
            f"(epoch {epoch}); lower train.learning_rate (now {self._settings.learning_rate:g})",
            self.history,
        )

    def _add(
        self,
        step: int,
        split: str,
        loss: float | None,
        accuracy: float | None,
        status: str = "ok",
    ) -> LogPoint:
        rate = float(schedule.learning_rates(self._settings, step - 1, 1)[0])
        seen = step * self._settings.batch_size
        point = LogPoint(step, seen, split, loss, accuracy, rate, status)
        self.history.append(point)
        return point
