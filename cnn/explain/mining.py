"""Exact top-k mining of every filter's activations, in one pass and constant memory.

Order: strongest first, then image, y, x ascending. The result for a set of images does not
depend on how they are split or in which order the parts are merged: each part keeps its k
strongest positions and counts those that are tied with the last one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnn.explain.activations import Batch


@dataclass(frozen=True)
class MiningOptions:
    """Which positions to keep.

    k: at most this many per filter. filters: whether to search each filter, (filters,). floor:
    keep only activations above it. one_per_image: keep only an image's strongest position.
    radius: a position suppresses weaker ones of its image that are at most this many rows and
    columns away; 0 suppresses none.
    """

    k: int
    filters: NDArray[np.bool_]
    floor: float = 0.0
    one_per_image: bool = False
    radius: int = 0


@dataclass(frozen=True)
class TopK:
    """The strongest positions of every filter, sorted by filter and then by rank.

    filters: (n,) int64. activations: (n,) float32. positions: (n,) int64, indices into all
    positions of a filter, (image * height + y) * width + x. n_tied: (filters,) int64, number of
    further positions with the same activation as a filter's last one.
    """

    filters: NDArray[np.int64]
    activations: NDArray[np.float32]
    positions: NDArray[np.int64]
    n_tied: NDArray[np.int64]

    @classmethod
    def nothing(cls, n_filters: int) -> "TopK":
        """Return the result for no images."""
        empty = np.empty(0, np.int64)
        return cls(empty, np.empty(0, np.float32), empty, np.zeros(n_filters, np.int64))

    def weakest(self, k: int) -> NDArray[np.float32]:
        """Return each filter's k-th activation, -inf if it has fewer than k."""
        bounds = np.full(len(self.n_tied), -np.inf, np.float32)
        ends = np.searchsorted(self.filters, np.arange(len(bounds)), side="right")
        full = np.bincount(self.filters, minlength=len(bounds)) == k
        bounds[full] = self.activations[ends[full] - 1]
        return bounds


def mine(batches: Iterable[Batch], options: MiningOptions) -> TopK:
    """Return the strongest positions over all batches."""
    best = TopK.nothing(len(options.filters))
    for batch in batches:
        candidates = _candidates(batch, best.weakest(options.k), options)
        if len(candidates.filters):
            best = merge(best, candidates, options.k)
    return best


def merge(one: TopK, other: TopK, k: int) -> TopK:
    """Return the k strongest of two disjoint sets of positions; associative and commutative."""
    filters = np.concatenate([one.filters, other.filters])
    activations = np.concatenate([one.activations, other.activations])
    positions = np.concatenate([one.positions, other.positions])
    order = np.lexsort((positions, -activations, filters))
    filters, activations, positions = filters[order], activations[order], positions[order]
    n_filters = len(one.n_tied)
    starts = np.searchsorted(filters, np.arange(n_filters))
    kept = np.arange(len(filters)) - starts[filters] < k
    last = np.full(n_filters, np.nan, np.float32)
    last[filters[kept]] = activations[kept]  # a filter's last one is assigned last
    full = np.bincount(filters[kept], minlength=n_filters) == k
    dropped = ~kept & (activations == last[filters])
    n_tied = np.bincount(filters[dropped], minlength=n_filters)
    for part in (one, other):
        n_tied += np.where(full & (part.weakest(k) == last), part.n_tied, 0)
    return TopK(filters[kept], activations[kept], positions[kept], n_tied)


def _candidates(batch: Batch, weakest: NDArray[np.float32], options: MiningOptions) -> TopK:
    """Return the positions of a batch that may be in the top k, given the k-th so far.

    Most images are ruled out by their peaks alone.
    """
    bounds = _bounds(batch.peaks, weakest, options)
    images, filters = np.nonzero((batch.peaks >= bounds) & (batch.peaks > options.floor))
    maps = batch.values[images, :, :, filters]
    strong = (maps >= bounds[filters, None, None]) & (maps > options.floor)
    if options.one_per_image or options.radius:
        strong = _suppressed(maps, strong, options)
    pair, y, x = np.nonzero(strong)
    height, width = maps.shape[1:]
    positions = ((images[pair] + batch.start) * height + y) * width + x
    found = TopK(filters[pair], maps[pair, y, x], positions, np.zeros(len(bounds), np.int64))
    return merge(TopK.nothing(len(bounds)), found, options.k)


def _bounds(
    peaks: NDArray[np.float32], weakest: NDArray[np.float32], options: MiningOptions
) -> NDArray[np.float32]:
    """Return the activation that each filter's candidates must reach.

    For a filter with fewer than k positions so far, that is the k-th largest of the batch's
    peaks: k images have a position at least that strong.
    """
    bounds = np.where(options.filters, weakest, np.float32(np.inf))
    is_open = np.flatnonzero(bounds == -np.inf)
    if len(is_open) and len(peaks) >= options.k:
        at = len(peaks) - options.k
        bounds[is_open] = np.partition(peaks[:, is_open], at, axis=0)[at]
    return bounds


def _suppressed(
    maps: NDArray[np.float32], strong: NDArray[np.bool_], options: MiningOptions
) -> NDArray[np.bool_]:
    """Return the strong positions of each map (n, y, x) that no stronger one suppresses."""
    height, width = maps.shape[1:]
    left = np.where(strong, maps, -np.inf)
    chosen = np.zeros_like(strong)
    rows, columns = np.arange(height), np.arange(width)
    alive = np.flatnonzero(strong.any(axis=(1, 2)))
    while len(alive):
        y, x = np.unravel_index(left[alive].reshape(len(alive), -1).argmax(axis=1), (height, width))
        chosen[alive, y, x] = True
        if options.one_per_image:
            break
        near_y = np.abs(rows - y[:, None]) <= options.radius
        near_x = np.abs(columns - x[:, None]) <= options.radius
        left[alive] = np.where(near_y[:, :, None] & near_x[:, None, :], -np.inf, left[alive])
        alive = alive[(left[alive] > -np.inf).any(axis=(1, 2))]
    return chosen
