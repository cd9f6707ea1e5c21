"""Trains a model from a data set and a complete training: the work of the step train_model."""

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

_LONGEST_BLOCK = 25  # steps; short enough for progress that moves, long enough to cost nothing
_N_OWN_WATCHED = 1000
_LARGEST_LOSS = 1e6  # nats; a network beyond it has lost its units and does not come back


@dataclass(frozen=True)
class LogPoint:
    """One row of the history: what was measured on one split after some steps.

    loss: mean cross-entropy, nats. A diverged step has no accuracy, and no loss where it
    is not finite.
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
    """A training between two blocks: everything that decides how it goes on.

    arrays: weights, the optimizer's slots, moving averages, float32. sums: loss, hits and
    steps since the last log point.
    """

    step: int
    arrays: list[NDArray[np.float32]]
    sums: tuple[float, int, int]
    history: list[LogPoint]


Keep = Callable[[Callable[[], TrainingState]], None]


def keep_nothing(capture: Callable[[], TrainingState]) -> None:
    """Do nothing: the callback of those who want no checkpoints."""


@dataclass(frozen=True)
class Fitted:
    """A trained keras.Model and its history."""

    model: Model
    history: list[LogPoint]


class DivergedError(TrainingError):
    """The loss is not finite or beyond all reason; `history` holds what was measured until then."""

    def __init__(self, message: str, history: list[LogPoint]) -> None:
        """Keep the history beside the message."""
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
    """Return the model trained on the training images, with its history.

    The history has a row for the training batches since the last log point, with
    dropout as trained, and one for the images of `settings.log_split`, without. From a
    `state` the training goes on to the same result; `keep` is offered the state after
    each block but the last. `xla`: see loop.Loop. Raises DivergedError at the first step
    whose loss is not finite, or above _LARGEST_LOSS, TrainingError where the memory is not enough,
    and ArtifactError for a state of another network.
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
            "train.batch_size: %d is more than the %s training images, so that a batch has some "
            "of them several times",
            settings.batch_size,
            f"{n_images:,}",
        )


def _warn_of_nothing_learnt(history: list[LogPoint], settings: Training, n_classes: int) -> None:
    """Say so where the last training batches went no better than by chance."""
    chance = math.log(n_classes)
    last = next(point for point in reversed(history) if point.split == "train")
    if last.loss is not None and last.loss > chance:
        log.warning(
            "train.learning_rate: nothing was learnt; the last batches' loss is %.3g, and chance "
            "alone has %.3g: lower the rate, %g now, or train for more steps",
            last.loss,
            chance,
            settings.learning_rate,
        )


@contextmanager
def _memory_faults(settings: Training) -> Iterator[None]:
    """Raise TrainingError where the device's memory is not enough."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        lines = error.message.splitlines()
        what = next((line.strip() for line in lines if "OOM" in line), lines[0])
        raise TrainingError(
            f"train.batch_size: the device's memory does not hold the images and a step with "
            f"{settings.batch_size} of them; lower it ({what})"
        ) from None


def _blocks(settings: Training, step: int) -> Iterator[tuple[int, int]]:
    """Yield first step and number of steps of each block from a step on, a block's end.

    Blocks end at log points, and are the same wherever a training begins.
    """
    while step < settings.steps:
        to_log_point = settings.log_every - step % settings.log_every
        n_steps = min(to_log_point, settings.steps - step, _LONGEST_BLOCK)
        yield step, n_steps
        step += n_steps


class _Trainer:
    """A training under way: sums since the last log point, and the history."""

    def __init__(
        self, dataset: Dataset, settings: Training, training: loop.Loop, report: progress.Report
    ) -> None:
        self.history: list[LogPoint] = []
        self._settings, self._loop, self._report = settings, training, report
        self._n_train = len(dataset.splits["train"])
        # Without images to watch, some of the training's own show what the last step did.
        self._watched_split = settings.log_split if dataset.splits[settings.log_split] else "train"
        watched = dataset.splits[self._watched_split]
        n = None if self._watched_split != "train" else _N_OWN_WATCHED
        self._watched = loop.hold(watched.images[:n], watched.labels[:n])
        self._loss, self._n_correct, self._n_steps = 0.0, 0, 0
        self._step = 0

    def state(self) -> TrainingState:
        """Return the training as it stands, in arrays of its own."""
        sums = (self._loss, self._n_correct, self._n_steps)
        return TrainingState(self._step, self._loop.arrays(), sums, list(self.history))

    def restore(self, state: TrainingState) -> None:
        """Go on from a state; raises ArtifactError where it is another network's."""
        self._loop.restore(state.arrays)
        self._step, self.history = state.step, list(state.history)
        self._loss, self._n_correct, self._n_steps = state.sums

    def train(self, first_step: int, n_steps: int) -> None:
        """Train one block; log where it ends at a log point."""
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
        """Add the first steps of a block to the sums."""
        self._loss += float(block.losses[:n_steps].sum(dtype=np.float64))
        self._n_correct += int(block.n_correct[:n_steps].sum())
        self._n_steps += n_steps

    def _add_batches(self, step: int) -> LogPoint:
        """Add the row of the training batches since the last one, up to a step."""
        n_images = self._n_steps * self._settings.batch_size
        train = self._add(step, "train", self._loss / self._n_steps, self._n_correct / n_images)
        self._loss, self._n_correct, self._n_steps = 0.0, 0, 0
        return train

    def _log(self, step: int) -> None:
        train = self._add_batches(step)
        words = [
            f"step {step}: batch accuracy {train.accuracy:.4f}, loss {train.loss:.4f}",
            f"learning rate {train.learning_rate:.2g}",
        ]
        loss, n_correct = self._loop.evaluate(*self._watched)
        if not loss <= _LARGEST_LOSS:
            self._diverge(step, loss, self._watched_split)
        if self._watched_split != "train":
            accuracy = n_correct / len(self._watched[1])
            self._add(step, self._watched_split, loss, accuracy)
            words.append(f"{self._watched_split} accuracy {accuracy:.4f}")
        log.info("%s", ", ".join(words))

    def _diverge(self, step: int, loss: float, split: str) -> None:
        self._add(step, split, loss if np.isfinite(loss) else None, None, "diverged")
        epoch = (step * self._settings.batch_size - 1) // self._n_train + 1
        raise DivergedError(
            f"training diverged: the loss is {loss:.3g} at step {step} of {self._settings.steps} "
            f"(epoch {epoch}); lower train.learning_rate, {self._settings.learning_rate:g} now",
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
