"""Exact mining of the strongest activations of every filter, in one pass and little memory.

Order: strongest first, then image, y, x ascending. The result of a set of images does not
depend on how it is cut into parts or in which order the parts are merged: a part keeps its k
strongest positions and the number of those that are tied with the last one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnn.explain.activations import Batch


@dataclass(frozen=True)
class MiningOptions:
    """Which positions are looked for.

    k: at most so many of each filter. filters: whether each filter is searched. floor: they are
    stronger than this. one_per_image: of an image only the strongest. radius: a position keeps
    weaker ones of its image away that are at most so many rows and columns from it; 0 keeps
    none away.
    """

    k: int
    filters: NDArray[np.bool_]
    floor: float = 0.0
    one_per_image: bool = False
    radius: int = 0


@dataclass(frozen=True)
class TopK:
    """The strongest positions of every filter: by filter, and in order for each.

    filters: (n,) int64. activations: (n,) float32. positions: (n,) int64, the position's index
    among all of a filter, (image * height + y) * width + x. n_tied: (filters,) int64, further
    positions with the strength of a filter's last one.
    """

    filters: NDArray[np.int64]
    activations: NDArray[np.float32]
    positions: NDArray[np.int64]
    n_tied: NDArray[np.int64]

    @classmethod
    def nothing(cls, n_filters: int) -> "TopK":
        """Return the result of no images."""
        empty = np.empty(0, np.int64)
        return cls(empty, np.empty(0, np.float32), empty, np.zeros(n_filters, np.int64))

    def weakest(self, k: int) -> NDArray[np.float32]:
        """Return for each filter the k-th strength, -inf while there are fewer."""
        bounds = np.full(len(self.n_tied), -np.inf, np.float32)
        ends = np.searchsorted(self.filters, np.arange(len(bounds)), side="right")
        full = np.bincount(self.filters, minlength=len(bounds)) == k
        bounds[full] = self.activations[ends[full] - 1]
        return bounds


def mine(batches: Iterable[Batch], rule: MiningOptions) -> TopK:
    """Return the strongest positions over all batches."""
    best = TopK.nothing(len(rule.filters))
    for batch in batches:
        found = _strongest(batch, best.weakest(rule.k), rule)
        if len(found.filters):
            best = merge(best, found, rule.k)
    return best


def merge(one: TopK, other: TopK, k: int) -> TopK:
    """Return the k strongest of two disjoint sets of positions; associative, commutative."""
    filters = np.concatenate([one.filters, other.filters])
    activations = np.concatenate([one.activations, other.activations])
    positions = np.concatenate([one.positions, other.positions])
    order = np.lexsort((positions, -activations, filters))
    filters, activations, positions = filters[order], activations[order], positions[order]
    n_filters = len(one.n_tied)
    starts = np.searchsorted(filters, np.arange(n_filters))
    kept = np.arange(len(filters)) - starts[filters] < k
    last = np.full(n_filters, np.nan, np.float32)
    last[filters[kept]] = activations[kept]  # the last assignment of each filter stays
    full = np.bincount(filters[kept], minlength=n_filters) == k
    dropped = ~kept & (activations == last[filters])
    n_tied = np.bincount(filters[dropped], minlength=n_filters)
    for part in (one, other):
        n_tied += np.where(full & (part.weakest(k) == last), part.n_tied, 0)
    return TopK(filters[kept], activations[kept], positions[kept], n_tied)


def _strongest(batch: Batch, weakest: NDArray[np.float32], rule: MiningOptions) -> TopK:
    """Return what a batch has that may be among the strongest, given the weakest so far.

    Most images are passed over by their peaks alone.
    """
    bounds = _bounds(batch.peaks, weakest, rule)
    images, filters = np.nonzero((batch.peaks >= bounds) & (batch.peaks > rule.floor))
    maps = batch.values[images, :, :, filters]
    strong = (maps >= bounds[filters, None, None]) & (maps > rule.floor)
    if rule.one_per_image or rule.radius:
        strong = _apart(maps, strong, rule)
    pair, y, x = np.nonzero(strong)
    height, width = maps.shape[1:]
    positions = ((images[pair] + batch.start) * height + y) * width + x
    found = TopK(filters[pair], maps[pair, y, x], positions, np.zeros(len(bounds), np.int64))
    return merge(TopK.nothing(len(bounds)), found, rule.k)


def _bounds(
    peaks: NDArray[np.float32], weakest: NDArray[np.float32], rule: MiningOptions
) -> NDArray[np.float32]:
    """Return what each filter's positions must reach.

    While a filter has fewer than k positions, that is the k-th of the images' peaks: so many
    images have a position that strong.
    """
    bounds = np.where(rule.filters, weakest, np.float32(np.inf))
    is_open = np.flatnonzero(bounds == -np.inf)
    if len(is_open) and len(peaks) >= rule.k:
        at = len(peaks) - rule.k
        bounds[is_open] = np.partition(peaks[:, is_open], at, axis=0)[at]
    return bounds


def _apart(
    maps: NDArray[np.float32], strong: NDArray[np.bool_], rule: MiningOptions
) -> NDArray[np.bool_]:
    """Return the positions of each map (n, y, x) that no stronger one keeps away."""
    height, width = maps.shape[1:]
    left = np.where(strong, maps, -np.inf)
    chosen = np.zeros_like(strong)
    rows, columns = np.arange(height), np.arange(width)
    alive = np.flatnonzero(strong.any(axis=(1, 2)))
    while len(alive):
        y, x = np.unravel_index(left[alive].reshape(len(alive), -1).argmax(axis=1), (height, width))
        chosen[alive, y, x] = True
        if rule.one_per_image:
            break
        near_y = np.abs(rows - y[:, None]) <= rule.radius
        near_x = np.abs(columns - x[:, None]) <= rule.radius
        left[alive] = np.where(near_y[:, :, None] & near_x[:, None, :], -np.inf, left[alive])
        alive = alive[(left[alive] > -np.inf).any(axis=(1, 2))]
    return chosen
