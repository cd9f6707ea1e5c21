"""Trains a model from a data set and a complete training: the work of the step train_model."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cnn import progress
from cnn.config import Training
from cnn.data.dataset import Dataset
from cnn.errors import TrainingError
from cnn.train import loop, model, schedule

log = logging.getLogger(__name__)

_LONGEST_BLOCK = 100


@dataclass(frozen=True)
class LogPoint:
    """One row of the history: what was measured on one split after some steps."""

    step: int
    n_images_seen: int
    split: str
    loss: float
    accuracy: float
    learning_rate: float
    status: str = "ok"


@dataclass(frozen=True)
class Fitted:
    """A trained keras.Model and its history."""

    model: Any
    history: list[LogPoint]


class DivergedError(TrainingError):
    """The loss is no longer finite; `history` holds what was measured until then."""

    def __init__(self, message: str, history: list[LogPoint]) -> None:
        """Keep the history beside the message."""
        super().__init__(message)
        self.history = history


def fit(
    dataset: Dataset, settings: Training, seed: int, report: progress.Report = progress.ignore
) -> Fitted:
    """Return the model trained on the training images, with its history.

    The history has a row for the training batches since the last log point, with
    dropout as trained, and one for the images of `settings.log_split`, without. Raises
    DivergedError at the first step whose loss is not finite.
    """
    network = model.build(settings, dataset.image_shape, len(dataset.class_names), seed)
    train = dataset.splits["train"]
    run = _Run(
        dataset, settings, loop.Loop(network, settings, seed, train.images, train.labels), report
    )
    for first_step, n_steps in _blocks(settings):
        run.train(first_step, n_steps)
    return Fitted(network, run.history)


def _blocks(settings: Training) -> Iterator[tuple[int, int]]:
    """Yield first step and number of steps of each block; blocks end at log points."""
    step = 0
    while step < settings.steps:
        to_log_point = settings.log_every - step % settings.log_every
        n_steps = min(to_log_point, settings.steps - step, _LONGEST_BLOCK)
        yield step, n_steps
        step += n_steps


@dataclass
class _Run:
    """A training under way: sums since the last log point, and the history."""

    dataset: Dataset
    settings: Training
    loop: loop.Loop
    report: progress.Report
    history: list[LogPoint] = field(default_factory=list)
    _loss: float = 0.0
    _n_correct: int = 0
    _n_steps: int = 0

    def __post_init__(self) -> None:
        watched = self.dataset.splits[self.settings.log_split]
        self._watched = loop.hold(watched.images, watched.labels) if len(watched) else None

    def train(self, first_step: int, n_steps: int) -> None:
        """Train one block; log where it ends at a log point."""
        block = self.loop.run(first_step, n_steps)
        finite = np.isfinite(block.losses)
        if not finite.all():
            self._diverge(first_step + int(np.argmin(finite)) + 1)
        self._loss += float(block.losses.sum(dtype=np.float64))
        self._n_correct += int(block.n_correct.sum())
        self._n_steps += n_steps
        done = first_step + n_steps
        if done % self.settings.log_every == 0 or done == self.settings.steps:
            self._log(done)
        figures = {"accuracy": self.history[-1].accuracy} if self.history else {}
        self.report(progress.Progress(done, self.settings.steps, "step", figures))

    def _log(self, step: int) -> None:
        n_images = self._n_steps * self.settings.batch_size
        self._add(step, "train", self._loss / self._n_steps, self._n_correct / n_images)
        self._loss, self._n_correct, self._n_steps = 0.0, 0, 0
        if self._watched is None:
            return
        loss, n_correct = self.loop.evaluate(*self._watched)
        n_watched = len(self.dataset.splits[self.settings.log_split])
        self._add(step, self.settings.log_split, loss, n_correct / n_watched)
        train, watched = self.history[-2:]
        log.info(
            "step %d: batch accuracy %.4f, loss %.4f, learning rate %.2g, %s accuracy %.4f",
            step,
            train.accuracy,
            train.loss,
            train.learning_rate,
            watched.split,
            watched.accuracy,
        )

    def _diverge(self, step: int) -> None:
        self._add(step, "train", float("nan"), float("nan"), "diverged")
        epoch = (step * self.settings.batch_size - 1) // len(self.dataset.splits["train"]) + 1
        raise DivergedError(
            f"training diverged: the loss is not finite at step {step} of {self.settings.steps} "
            f"(epoch {epoch}); lower train.learning_rate, {self.settings.learning_rate:g} now",
            self.history,
        )

    def _add(self, step: int, split: str, loss: float, accuracy: float, status: str = "ok") -> None:
        rate = float(schedule.learning_rates(self.settings, step - 1, 1)[0])
        seen = step * self.settings.batch_size
        self.history.append(LogPoint(step, seen, split, loss, accuracy, rate, status))
