"""Exact mining of the strongest activations of every filter, in one pass and little memory.

Order: activation descending, then image, y, x ascending. The result of a set of images
does not depend on how it is cut into parts or in which order the parts are merged.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnn.explain.activations import Batch


@dataclass(frozen=True)
class Best:
    """The at most k strongest positions of one filter, in order.

    activations: (n,) float32, above 0. positions: (n, 3) int64, rows of image, y, x.
    n_tied: further positions with the last one's activation.
    """

    activations: NDArray[np.float32]
    positions: NDArray[np.int64]
    n_tied: int = 0

    @classmethod
    def nothing(cls) -> "Best":
        """Return the result of no images."""
        return cls(np.empty(0, np.float32), np.empty((0, 3), np.int64))

    def weakest(self, k: int) -> float:
        """Return what a new position must reach: the k-th activation, 0 while there are fewer."""
        return float(self.activations[-1]) if len(self.activations) == k else 0.0


def mine(batches: Iterable[Batch], n_filters: int, k: int) -> list[Best]:
    """Return for each filter its k strongest positions over all batches."""
    best = [Best.nothing() for _ in range(n_filters)]
    for batch in batches:
        found = _strongest(batch, [item.weakest(k) for item in best], k)
        best = [merge(old, new, k) for old, new in zip(best, found, strict=True)]
    return best


def merge(one: Best, other: Best, k: int) -> Best:
    """Return the k strongest of two disjoint sets of positions; associative, commutative."""
    activations = np.concatenate([one.activations, other.activations])
    positions = np.concatenate([one.positions, other.positions])
    order = np.lexsort((*positions.T[::-1], -activations))
    kept, dropped = order[:k], order[k:]
    if len(kept) < k:
        return Best(activations[kept], positions[kept])
    last = activations[kept[-1]]
    n_tied = int((activations[dropped] == last).sum()) + sum(
        part.n_tied
        for part in (one, other)
        if len(part.activations) and part.activations[-1] == last
    )
    return Best(activations[kept], positions[kept], n_tied)


def _strongest(batch: Batch, weakest: list[float], k: int) -> list[Best]:
    """Return each filter's k strongest positions of one batch that reach the weakest so far."""
    n, height, width, n_filters = batch.values.shape
    flat = batch.values.reshape(-1, n_filters)
    thresholds = np.array(weakest, np.float32)
    open_ended = np.flatnonzero(thresholds == 0)
    thresholds[open_ended] = _kth_largest(flat[:, open_ended], k)
    rows, filters = np.nonzero((flat >= thresholds) & (flat > 0))
    image, y, x = np.unravel_index(rows, (n, height, width))
    positions = np.stack([image + batch.start, y, x], axis=1).astype(np.int64)
    values = flat[rows, filters]
    mine_of = [np.flatnonzero(filters == f) for f in range(n_filters)]
    return [merge(Best.nothing(), Best(values[i], positions[i]), k) for i in mine_of]


def _kth_largest(flat: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Return the k-th largest value of each column, or 0 where there are fewer rows."""
    if len(flat) < k:
        return np.zeros(flat.shape[1], np.float32)
    kth: NDArray[np.float32] = np.partition(flat, len(flat) - k, axis=0)[len(flat) - k]
    return kth
