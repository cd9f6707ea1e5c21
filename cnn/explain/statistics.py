"""Statistics of filter activations, in one pass and in memory independent of the image count.

A filter's response to an image is its mean activation over all positions.
"""

import functools
from dataclasses import dataclass, field

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from cnn.explain.activations import Batch

_SHIFT = 16  # low bits of a float32 to drop: the values of one bin differ by 1/128 at most
_N_BINS = 1 << 15  # one for each upper half of a non-negative float32
_AT_ONCE = 1 << 20  # activations; larger chunks do not fit the CPU's cache


@dataclass
class Correlation:
    """Running sums for the correlations of activations at the same positions.

    They relate two sets of filters, or one set to itself. The first position's activations are
    subtracted, so that a filter that is always on loses no precision and a constant one has
    exactly zero variance.
    """

    n: int = 0
    shifts: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    sums: list[NDArray[np.float64]] = field(default_factory=list)
    squares: list[NDArray[np.float64]] = field(default_factory=list)
    products: NDArray[np.float64] | float = 0.0

    def add(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> None:
        """Add activations (positions, filters) of both sets at the same positions."""
        if self.shifts is None:
            self.shifts = one[0].copy(), other[0].copy()
            self.sums = [np.zeros(one.shape[1]), np.zeros(other.shape[1])]
            self.squares = [np.zeros(one.shape[1]), np.zeros(other.shape[1])]
        n_at_once = max(1, _AT_ONCE // max(one.shape[1], other.shape[1]))
        for start in range(0, len(one), n_at_once):
            part = slice(start, start + n_at_once)
            first = one[part]
            self._add(first, first if other is one else other[part])
        self.n += len(one)

    def _add(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> None:
        assert self.shifts is not None
        first = np.subtract(one, self.shifts[0], dtype=np.float64)
        second = first if other is one else np.subtract(other, self.shifts[1], dtype=np.float64)
        for i, values in enumerate((first, second)):
            self.sums[i] += values.sum(axis=0)
            self.squares[i] += np.einsum("pf,pf->f", values, values)
        # With more threads the last digits of the sums would depend on their number, and on a
        # busy machine two threads take a hundred times as long as one.
        with _blas().limit(limits=1):
            self.products = self.products + first.T @ second

    def correlations(self) -> NDArray[np.float64]:
        """Return the Pearson correlations (filters, other filters), NaN for a constant filter."""
        means = [total / self.n for total in self.sums]
        spreads = [
            np.sqrt(np.maximum(square / self.n - mean**2, 0))
            for square, mean in zip(self.squares, means, strict=True)
        ]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = (self.products / self.n - np.outer(*means)) / np.outer(*spreads)
        return np.clip(found, -1, 1)


class ActivationStats:
    """How often, how strongly and for which classes each filter of a layer fires.

    It keeps only counts and sums, so its size does not depend on the number of images.
    """

    def __init__(self, n_filters: int, n_classes: int) -> None:
        """Start with no images."""
        self.n_positions = 0
        self.n_images = np.zeros(n_classes, np.int64)
        self.largest = np.zeros(n_filters, np.float32)
        self.correlation = Correlation()
        self._sums = np.zeros((n_classes, n_filters))
        self._squares = np.zeros(n_filters)
        self._population = 0.0
        self._n_responding = 0
        self._counts = np.zeros((n_filters, _N_BINS), np.int64)

    def add(self, batch: Batch, labels: NDArray[np.int64]) -> None:
        """Add a batch and the labels (n,) of its images; activations below 0 count as 0."""
        self.n_images += np.bincount(labels, minlength=len(self.n_images))
        self.largest = np.maximum(self.largest, batch.peaks.max(axis=0))
        n_at_once = max(1, _AT_ONCE // batch.values[0].size)
        for start in range(0, len(labels), n_at_once):
            part = slice(start, start + n_at_once)
            maps = np.maximum(batch.values[part], 0)
            flat = maps.reshape(-1, maps.shape[-1])
            self._add_responses(maps.mean(axis=(1, 2), dtype=np.float64), labels[part])
            self._count(flat)
            self.correlation.add(flat, flat)

    def _add_responses(self, responses: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        np.add.at(self._sums, labels, responses)
        self._squares += (responses**2).sum(axis=0)
        n_filters = responses.shape[1]
        of_images = sparseness(responses.sum(axis=1), (responses**2).sum(axis=1), n_filters)
        self._population += float(np.nansum(of_images))
        self._n_responding += int(np.isfinite(of_images).sum())

    def _count(self, flat: NDArray[np.float32]) -> None:
        """Count activations (positions, filters); the first bin holds only zeros."""
        bins = (flat.view(np.int32) + ((1 << _SHIFT) - 1)) >> _SHIFT
        for f, filter_bins in enumerate(bins.T):
            self._counts[f] += np.bincount(filter_bins, minlength=_N_BINS)
        self.n_positions += len(flat)

    @property
    def fraction_active(self) -> NDArray[np.float64]:
        """Fraction of the positions at which each filter fires, 0..1."""
        return 1 - self._counts[:, 0] / self.n_positions

    @property
    def class_means(self) -> NDArray[np.float64]:
        """Mean response to each class, (classes, filters), NaN for a class without images."""
        with np.errstate(invalid="ignore"):
            means: NDArray[np.float64] = self._sums / self.n_images[:, None]
        return means

    @property
    def mean_response(self) -> NDArray[np.float64]:
        """Mean response to all images, which equals the mean activation."""
        means: NDArray[np.float64] = self._sums.sum(axis=0) / self.n_images.sum()
        return means

    @property
    def lifetime_sparsity(self) -> NDArray[np.float64]:
        """Sparseness of each filter's responses across images."""
        return sparseness(self._sums.sum(axis=0), self._squares, int(self.n_images.sum()))

    @property
    def population_sparsity(self) -> float:
        """Sparseness of an image's responses across filters, averaged over images.

        Images that no filter responds to are left out. NaN if no image is left, or if there is
        only one filter.
        """
        return self._population / self._n_responding if self._n_responding else np.nan

    def quantiles(self, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return quantiles of the activations over all positions, (filters, levels).

        levels: fractions 0..1. A quantile is too large by at most 1/128 of its value.
        """
        shares = self._counts.cumsum(axis=1) / self.n_positions
        bins = np.stack([np.searchsorted(row, levels) for row in shares])
        return np.minimum(_values(bins), self.largest[:, None])

    def histogram(self, n_bins: int) -> NDArray[np.int64]:
        """Return how many positions fall into each of n_bins equal bins, (filters, n_bins).

        The bins reach from 0 to the filter's largest activation; positions that do not fire are
        not counted. An activation less than 1/128 below an edge may be counted above it.
        """
        counts = np.zeros((len(self.largest), n_bins), np.int64)
        for f, largest in enumerate(self.largest.astype(np.float64)):
            (bins,) = np.nonzero(self._counts[f, 1:])
            shares = np.minimum(_values(bins + 1) / largest, 1)
            wide_bins = np.ceil(shares * n_bins).astype(np.int64) - 1
            np.add.at(counts[f], wide_bins, self._counts[f, bins + 1])
        return counts


def sparseness(
    sums: NDArray[np.float64], squares: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """Return how unevenly n responses are spread, 0..1, from their sums and sums of squares.

    Vinje and Gallant 2000, "Sparse coding and decorrelation in primary visual cortex during
    natural vision". NaN if no response is above 0, or if n is 1.
    """
    with np.errstate(invalid="ignore"):
        return np.clip((1 - (sums / n) ** 2 / (squares / n)) / (1 - 1 / np.float64(n)), 0, 1)


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    """Return the controller of NumPy's BLAS threads; creating one takes 10 ms."""
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def _values(bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the largest value that each bin counts."""
    return (bins.astype(np.int32) << _SHIFT).view(np.float32).astype(np.float64)
