"""How filters behave on many images, in one pass and little memory.

A filter's response to an image is its mean activation over all positions.
"""

import functools
from dataclasses import dataclass, field

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from cnn.explain.activations import Batch

_SHIFT = 16  # a float32 without its last 16 bits: values that differ by 1/128 at most
_N_BINS = 1 << 15  # of floats that are not negative
_AT_ONCE = 1 << 20  # activations; more of them leave the processor's cache


@dataclass
class Correlation:
    """Sums that the correlations of activations at the same positions follow from.

    Two sets of filters, or one with itself. Taken around the first position's activations, so
    that a filter that is always on loses no digits, and one that is constant has no spread.
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
        # The sums' last digits would depend on the number of threads; and where other work
        # keeps the processors busy, two take a hundred times as long as one.
        with _blas().limit(limits=1):
            self.products = self.products + first.T @ second

    def correlations(self) -> NDArray[np.float64]:
        """Return Pearson's correlations (filters, other filters), NaN for one that is constant."""
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

    Counts and sums only: its size does not depend on the number of images.
    """

    def __init__(self, n_filters: int, n_classes: int) -> None:
        """Begin with no images."""
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
        """Add a batch with the labels (n,) of its images; activations below 0 count as 0."""
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
        """Count activations (positions, filters), 0 alone in the first bin."""
        bins = (flat.view(np.int32) + ((1 << _SHIFT) - 1)) >> _SHIFT
        for f, of_filter in enumerate(bins.T):
            self._counts[f] += np.bincount(of_filter, minlength=_N_BINS)
        self.n_positions += len(flat)

    @property
    def fraction_active(self) -> NDArray[np.float64]:
        """Share of the positions at which each filter fires."""
        return 1 - self._counts[:, 0] / self.n_positions

    @property
    def class_means(self) -> NDArray[np.float64]:
        """Mean response to each class, (classes, filters), NaN for one without images."""
        with np.errstate(invalid="ignore"):
            means: NDArray[np.float64] = self._sums / self.n_images[:, None]
        return means

    @property
    def mean_response(self) -> NDArray[np.float64]:
        """Mean response to all images, which is the mean activation."""
        means: NDArray[np.float64] = self._sums.sum(axis=0) / self.n_images.sum()
        return means

    @property
    def lifetime_sparsity(self) -> NDArray[np.float64]:
        """Sparseness of each filter's responses over the images."""
        return sparseness(self._sums.sum(axis=0), self._squares, int(self.n_images.sum()))

    @property
    def population_sparsity(self) -> float:
        """Sparseness of an image's responses over the filters, mean over the images.

        Images that no filter responds to have none; NaN where there are no others, or one filter.
        """
        return self._population / self._n_responding if self._n_responding else np.nan

    def quantiles(self, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the activations (filters, levels) that this share of the positions is not above.

        Too large by 1/128 of the value at most.
        """
        shares = self._counts.cumsum(axis=1) / self.n_positions
        bins = np.stack([np.searchsorted(row, levels) for row in shares])
        return np.minimum(_values(bins), self.largest[:, None])

    def histogram(self, n_bins: int) -> NDArray[np.int64]:
        """Return how many positions fire how strongly: bins of one width from 0 to the largest.

        Activations that are by less than 1/128 below an edge may be counted above it.
        """
        found = np.zeros((len(self.largest), n_bins), np.int64)
        for f, largest in enumerate(self.largest.astype(np.float64)):
            (bins,) = np.nonzero(self._counts[f, 1:])
            shares = np.minimum(_values(bins + 1) / largest, 1)
            places = np.ceil(shares * n_bins).astype(np.int64) - 1
            np.add.at(found[f], places, self._counts[f, bins + 1])
        return found


def sparseness(
    sums: NDArray[np.float64], squares: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """Return how unevenly n responses are spread, 0..1, from their sums and sums of squares.

    Vinje and Gallant 2000, "Sparse coding and decorrelation in primary visual cortex during
    natural vision". NaN where no response is above 0, or n is 1.
    """
    with np.errstate(invalid="ignore"):
        return np.clip((1 - (sums / n) ** 2 / (squares / n)) / (1 - 1 / np.float64(n)), 0, 1)


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    """Return what sets the number of NumPy's threads; looking for it takes 10 ms."""
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def _values(bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the largest value that is counted in each bin."""
    return (bins.astype(np.int32) << _SHIFT).view(np.float32).astype(np.float64)
