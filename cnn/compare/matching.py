"""Match the filters of two models by their activations on the same images.

Filters are paired so that the sum of the correlations of their activations is largest, with the
Hungarian method: Li et al. 2016, "Convergent learning: do different neural networks learn the
same representations?", section 3. The correlation that unrelated filters reach by chance is
measured by showing each model a different image; a pair must exceed the best of those.
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

SAME = 0.9  # lowest correlation of a pair that is called the same
Status = Literal["same", "changed", "dead", "lost", "new"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class Pair:
    """A filter of the first model and its match in the second; one without a match is lost or new.

    correlation: of their activations; None without a match, and for two that never fire.
    """

    before: int | None
    after: int | None
    status: Status
    correlation: float | None = None


@dataclass(frozen=True)
class Match:
    """A layer's pairs, and the correlation that unrelated filters reach (`null`)."""

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
    """Match the filters of a layer in two models, on the same images.

    before, after: keras.Models. images: (n, h, w, c), pixels 0..255. Raises ConfigError if the
    layer's feature maps differ in size.
    """
    sides = [model.get_layer(layer).output.shape[1:3] for model in (before, after)]
    if sides[0] != sides[1]:
        raise ConfigError(
            f"layer {layer}: feature maps of {sides[0][0]} x {sides[0][1]} and "
            f"{sides[1][0]} x {sides[1][1]} positions cannot be compared"
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
    """Return another image's index for each image, drawn from all; a single image gets its own."""
    order = np.random.default_rng(0).permutation(n_images)
    others = np.empty_like(order)
    others[order] = np.roll(order, 1)
    return others


def _positions(batch: Batch) -> NDArray[np.float32]:
    return batch.values.reshape(-1, batch.values.shape[-1])


def _highest(correlations: NDArray[np.float64]) -> float:
    """Return the highest correlation in the best assignment, 0 if none is above 0."""
    return float(np.max(_assigned(correlations)[2], initial=0.0))


def _assigned(
    correlations: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the pairs of the best assignment, and each pair's correlation."""
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
