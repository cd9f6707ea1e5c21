"""Which filter of one model is which of another, by what they do on the same images.

Filters are paired so that the sum of the correlations of their activations is largest: Li et
al. 2016, "Convergent learning: do different neural networks learn the same representations?",
section 3; the assignment is the Hungarian method's. What two filters that have nothing in
common reach is measured with another image of the same ones for each model: a pair must be
above the best of those.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from cnn import progress
from cnn.errors import ConfigError
from cnn.explain import activations
from cnn.explain.activations import Batch, Forward
from cnn.explain.statistics import Correlation
from cnn.model_io.keras_types import Model

SAME = 0.9  # correlation from which on a pair is called the same
Status = Literal["same", "changed", "dead", "lost", "new"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class Pair:
    """A filter of the first model and its like in the second; one alone was lost, or is new.

    correlation: of their activations; null for one alone, and for two that never fire.
    """

    before: int | None
    after: int | None
    status: Status
    correlation: float | None = None


@dataclass(frozen=True)
class Match:
    """A layer's pairs, and the correlation that unrelated filters reach."""

    layer: str
    pairs: list[Pair]
    null: float


def match(
    before: Model,
    after: Model,
    layer: str,
    images: NDArray[Any],
    report: progress.Report = progress.ignore,
) -> Match:
    """Return which filters of a layer are which in two models, by the same images.

    before, after: keras.Models. images: (n, h, w, c), pixels 0..255. Raises ConfigError where
    the layer's maps have different sizes.
    """
    sides = [model.get_layer(layer).output.shape[1:3] for model in (before, after)]
    if sides[0] != sides[1]:
        raise ConfigError(
            f"layer {layer}: maps of {sides[0][0]} x {sides[0][1]} and of {sides[1][0]} x "
            f"{sides[1][1]} positions cannot be compared"
        )
    n_at_once = min(activations.batch_size(model, layer) for model in (before, after))
    first, second = (Forward(model, layer, at_most=n_at_once) for model in (before, after))
    paired, unrelated, others = Correlation(), Correlation(), _others(len(images))
    for one, same in zip(first.stream(images), second.stream(images), strict=True):
        paired.add(_positions(one), _positions(same))
        (other,) = second.stream(images[others[one.start : one.stop]])
        unrelated.add(_positions(one), _positions(other))
        report(progress.Progress(one.stop, len(images)))
    null = _highest(unrelated.correlations()) if len(images) > 1 else 0.0
    return Match(layer, _pairs(paired.correlations(), null), null)


def _others(n_images: int) -> NDArray[np.int64]:
    """Return for each image the index of another one, drawn from all; of one image, its own."""
    order = np.random.default_rng(0).permutation(n_images)
    others = np.empty_like(order)
    others[order] = np.roll(order, 1)
    return others


def _positions(batch: Batch) -> NDArray[np.float32]:
    return batch.values.reshape(-1, batch.values.shape[-1])


def _highest(correlations: NDArray[np.float64]) -> float:
    """Return the highest correlation of the best assignment, 0 where none is above."""
    return float(np.max(_assigned(correlations)[2], initial=0.0))


def _assigned(
    correlations: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the pairs of the best assignment and the correlation of each."""
    known = np.nan_to_num(correlations, nan=0.0)
    before, after = linear_sum_assignment(known, maximize=True)
    return before, after, known[before, after]


def _pairs(correlations: NDArray[np.float64], null: float) -> list[Pair]:
    n_before, n_after = correlations.shape
    unpaired = np.ones(n_before, bool), np.ones(n_after, bool)
    pairs: list[Pair] = []

    def pair(i: int, j: int, status: Status, correlation: float | None = None) -> None:
        unpaired[0][i] = unpaired[1][j] = False
        pairs.append(Pair(i, j, status, correlation))

    for i, j, value in zip(*_assigned(correlations), strict=True):
        if value > null:
            pair(int(i), int(j), "same" if value >= SAME else "changed", float(value))
    dead = np.isnan(correlations)
    silent = np.flatnonzero(dead.all(axis=1)), np.flatnonzero(dead.all(axis=0))
    for i, j in zip(*silent, strict=False):
        pair(int(i), int(j), "dead")
    return [
        *sorted(pairs, key=lambda item: item.before or 0),
        *(Pair(int(i), None, "lost") for i in np.flatnonzero(unpaired[0])),
        *(Pair(None, int(j), "new") for j in np.flatnonzero(unpaired[1])),
    ]
