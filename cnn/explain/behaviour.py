"""How filters behave on many images, in one pass and little memory.

A filter's response to an image is its mean activation over all positions.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cnn.explain.activations import Batch

_SHIFT = 16  # a float32 without its last 16 bits: values that differ by 1/128 at most
_N_BINS = 1 << 15  # of floats that are not negative


@dataclass
class Moments:
    """Sums that the correlations of activations at the same positions follow from.

    Two sets of filters, or one with itself. Taken around the first batch's means, so that a
    filter that is always on loses no digits.
    """

    n: int = 0
    shifts: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    sums: list[NDArray[np.float64]] = field(default_factory=list)
    squares: list[NDArray[np.float64]] = field(default_factory=list)
    products: NDArray[np.float64] | float = 0.0

    def add(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> None:
        """Add activations (positions, filters) of both sets at the same positions."""
        if self.shifts is None:
            self.shifts = one.mean(axis=0), other.mean(axis=0)
            self.sums = [np.zeros(one.shape[1]), np.zeros(other.shape[1])]
            self.squares = [np.zeros(one.shape[1]), np.zeros(other.shape[1])]
        pair = one - self.shifts[0], other - self.shifts[1]
        for i, values in enumerate(pair):
            self.sums[i] += values.sum(axis=0, dtype=np.float64)
            self.squares[i] += np.einsum("pf,pf->f", values, values, dtype=np.float64)
        self.products = self.products + np.float64(pair[0].T @ pair[1])
        self.n += len(one)

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


class Activity:
    """How often, how strongly and for which classes each filter of a layer fires.

    Counts and sums only: its size does not depend on the number of images.
    """

    def __init__(self, n_filters: int, n_classes: int) -> None:
        """Begin with no images."""
        self.n_positions = 0
        self.n_images = np.zeros(n_classes, np.int64)
        self.largest = np.zeros(n_filters, np.float32)
        self.moments = Moments()
        self._sums = np.zeros((n_classes, n_filters))
        self._squares = np.zeros(n_filters)
        self._population: list[float] = []
        self._counts = np.zeros((n_filters, _N_BINS), np.int64)

    def add(self, batch: Batch, labels: NDArray[np.int64]) -> None:
        """Add a batch with the labels (n,) of its images; activations below 0 count as 0."""
        n, height, width, n_filters = batch.values.shape
        flat = np.maximum(batch.values.reshape(-1, n_filters), 0)
        responses = flat.reshape(n, -1, n_filters).mean(axis=1, dtype=np.float64)
        self.n_positions += n * height * width
        self.n_images += np.bincount(labels, minlength=len(self.n_images))
        self.largest = np.maximum(self.largest, batch.peaks.max(axis=0))
        self.moments.add(flat, flat)
        np.add.at(self._sums, labels, responses)
        self._squares += (responses**2).sum(axis=0)
        of_images = sparseness(responses.sum(axis=1), (responses**2).sum(axis=1), n_filters)
        self._population.append(float(np.nansum(of_images)))
        bins = (flat.view(np.int32) >> _SHIFT) + np.arange(n_filters, dtype=np.int32) * _N_BINS
        counts = np.bincount(bins.ravel(), minlength=self._counts.size)
        self._counts += counts.reshape(self._counts.shape)

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
        """Sparseness of an image's responses over the filters, mean over the images."""
        return sum(self._population) / int(self.n_images.sum())

    def quantiles(self, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the activations (filters, levels) that this share of the positions is below.

        Too small by 1/128 of the value at most.
        """
        shares = self._counts.cumsum(axis=1) / self.n_positions
        bins = [np.searchsorted(row, levels) for row in shares]
        return _values(np.minimum(np.stack(bins), _N_BINS - 1))

    def histogram(self, n_bins: int) -> NDArray[np.int64]:
        """Return how many positions fire how strongly: bins of one width from 0 to the largest."""
        found = np.zeros((len(self.largest), n_bins), np.int64)
        for f, largest in enumerate(self.largest):
            (bins,) = np.nonzero(self._counts[f, 1:])
            places = np.minimum((_values(bins + 1) / largest * n_bins).astype(np.int64), n_bins - 1)
            np.add.at(found[f], places, self._counts[f, bins + 1])
        return found


def sparseness(
    sums: NDArray[np.float64], squares: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """Return how unevenly n responses are spread, 0..1, from their sums and sums of squares.

    Vinje and Gallant 2000, "Sparse coding and decorrelation in primary visual cortex during
    natural vision". NaN where no response is above 0, or n is 1.
    """
    if n == 1:
        return np.full(np.shape(sums), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (1 - (sums / n) ** 2 / (squares / n)) / (1 - 1 / n)


def _values(bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the smallest value that is counted in each bin."""
    return (bins.astype(np.int32) << _SHIFT).view(np.float32).astype(np.float64)
