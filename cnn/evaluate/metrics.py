"""Metrics from counts: sums first, one division at the end."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054  # two-sided 95 % of the standard normal


@dataclass(frozen=True)
class Scores:
    """Precision, recall and f1 of each class, NaN where a class has no images or predictions."""

    support: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Per bin of predicted probability: counts, mean probability, accuracy (NaN if empty)."""

    edges: NDArray[np.float64]
    n: NDArray[np.int64]
    n_correct: NDArray[np.int64]
    mean_probability: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def expected_error(self) -> float:
        """Expected calibration error (Guo et al. 2017, equation 3), a fraction."""
        gaps = np.abs(self.accuracy - self.mean_probability)
        return float(np.nansum(self.n * gaps) / self.n.sum())


def wilson(n_correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927); n is at least 1."""
    p = n_correct / n
    centre = p + _Z**2 / (2 * n)
    half = _Z * sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    return min(p, max(0.0, (centre - half) / scale)), max(p, min(1.0, (centre + half) / scale))


def confusion(
    labels: NDArray[np.int64], predictions: NDArray[np.int64], n_classes: int
) -> NDArray[np.int64]:
    """Return the confusion matrix (label, prediction) from labels and predictions, both (n,)."""
    cells = np.bincount(labels * n_classes + predictions, minlength=n_classes**2)
    counts: NDArray[np.int64] = cells.reshape(n_classes, n_classes)
    return counts


def scores(counts: NDArray[np.int64]) -> Scores:
    """Return per-class scores from a confusion matrix (label, prediction)."""
    hits, support, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return Scores(
        support,
        _divide(hits, predicted),
        _divide(hits, support),
        _divide(2 * hits, support + predicted),
    )


def calibration(
    probability: NDArray[np.floating[Any]], correct: NDArray[np.bool_], n_bins: int
) -> Calibration:
    """Return counts and means in equal-width bins (low, high] of the predicted probability."""
    edges = np.linspace(0, 1, n_bins + 1)
    bins = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, n_bins - 1)
    n = np.bincount(bins, minlength=n_bins)
    n_correct = np.bincount(bins[correct], minlength=n_bins)
    return Calibration(
        edges,
        n,
        n_correct,
        _divide(np.bincount(bins, probability.astype(np.float64), n_bins), n),
        _divide(n_correct, n),
    )


def _divide(parts: NDArray[Any], wholes: NDArray[Any]) -> NDArray[np.float64]:
    undefined = np.full(len(parts), np.nan)
    shares: NDArray[np.float64] = np.divide(parts, wholes, out=undefined, where=wholes > 0)
    return shares
