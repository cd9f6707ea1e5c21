"""What each filter is and how it behaves on images: the work of the step export_filters.

A filter's response to an image is its mean activation over all positions.
Selectivity: (largest class mean - mean of the others) / (their sum), Morcos et al. 2018,
"On the importance of single directions for generalization", section 3.2. Sparsity: lifetime
sparseness of the responses, Vinje and Gallant 2000, "Sparse coding and decorrelation in primary
visual cortex during natural vision".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import progress
from cnn.data.dataset import Dataset
from cnn.explain import activations

LAYERS = ("conv1",)
SPLIT = "test"


@dataclass(frozen=True)
class Filters:
    """One layer's kernels (filters, h, w, channels) and a row of figures for each filter."""

    layer: str
    kernels: NDArray[np.float32]
    rows: list[dict[str, Any]]


def describe(
    model: Any, layer: str, dataset: Dataset, report: progress.Report = progress.ignore
) -> Filters:
    """Return a layer's kernels and what each filter does on the test images."""
    split = dataset.splits[SPLIT]
    kernels = activations.kernels(model, layer)
    behaviour = _Behaviour.of(len(kernels), len(split))
    for batch in activations.stream(model, layer, split.images):
        behaviour.add(batch)
        done = batch.start + len(batch.values)
        report(progress.Progress(done, len(split)))
    shape = _shape_columns(kernels)
    columns = {**shape, **behaviour.columns(np.asarray(split.labels), len(dataset.class_names))}
    rows = [
        {"layer": layer, "filter": i, "split": SPLIT}
        | {name: values[i] for name, values in columns.items()}
        for i in range(len(kernels))
    ]
    return Filters(layer, kernels, rows)


def nearest(kernels: NDArray[np.float32]) -> tuple[list[int | None], list[float | None]]:
    """Return for each filter the one with the largest cosine to it, and that cosine.

    Null where there is only one filter or a kernel is all zeros.
    """
    flat = kernels.reshape(len(kernels), -1).astype(np.float64)
    norms = np.linalg.norm(flat, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (flat @ flat.T) / np.outer(norms, norms)
    np.fill_diagonal(cosines, np.nan)
    filled = np.where(np.isnan(cosines), -np.inf, cosines)
    best = filled.argmax(axis=1)
    known = [bool(np.isfinite(filled[i, j])) for i, j in enumerate(best)]
    return (
        [int(j) if ok else None for j, ok in zip(best, known, strict=True)],
        [
            float(np.clip(cosines[i, j], -1, 1)) if ok else None
            for i, (j, ok) in enumerate(zip(best, known, strict=True))
        ],
    )


def selectivity(class_means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the class selectivity index of each filter, 0..1, NaN for one that never fires.

    class_means: (classes, filters), mean response to each class that has images.
    """
    largest = class_means.max(axis=0)
    others = (class_means.sum(axis=0) - largest) / max(len(class_means) - 1, 1)
    with np.errstate(invalid="ignore"):
        index: NDArray[np.float64] = (largest - others) / (largest + others)
    return index


def sparseness(responses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lifetime sparseness of each filter, 0..1, NaN for one that never fires.

    responses: (images, filters), not negative.
    """
    n = len(responses)
    with np.errstate(invalid="ignore", divide="ignore"):
        activity = responses.mean(axis=0) ** 2 / (responses**2).mean(axis=0)
        return (1 - activity) / (1 - 1 / n) if n > 1 else np.full(responses.shape[1], np.nan)


@dataclass
class _Behaviour:
    """Sums over the images seen so far."""

    responses: NDArray[np.float64]
    n_active: NDArray[np.int64]
    largest: NDArray[np.float64]
    n_positions: int = 0

    @classmethod
    def of(cls, n_filters: int, n_images: int) -> "_Behaviour":
        zeros = np.zeros(n_filters)
        return cls(np.zeros((n_images, n_filters)), zeros.astype(np.int64), zeros)

    def add(self, batch: activations.Batch) -> None:
        values = batch.values.reshape(len(batch.values), -1, batch.values.shape[-1])
        stop = batch.start + len(values)
        self.responses[batch.start : stop] = values.mean(axis=1, dtype=np.float64)
        self.n_active += (values > 0).sum(axis=(0, 1))
        self.largest = np.maximum(self.largest, values.max(axis=(0, 1)))
        self.n_positions += values.shape[0] * values.shape[1]

    def columns(self, labels: NDArray[np.int64], n_classes: int) -> dict[str, list[Any]]:
        present = [label for label in range(n_classes) if (labels == label).any()]
        class_means = np.stack([self.responses[labels == label].mean(axis=0) for label in present])
        dead = self.n_active == 0
        preferred = np.array(present)[class_means.argmax(axis=0)]
        return {
            "dead": dead.tolist(),
            "fraction_active": (self.n_active / self.n_positions).tolist(),
            "max_activation": self.largest.tolist(),
            "mean_activation": self.responses.mean(axis=0).tolist(),
            "selectivity": _nulls(selectivity(class_means), dead),
            "preferred_label": _nulls(preferred, dead),
            "sparsity": _nulls(sparseness(self.responses), dead),
        }


def _shape_columns(kernels: NDArray[np.float32]) -> dict[str, list[Any]]:
    flat = kernels.reshape(len(kernels), -1).astype(np.float64)
    nearest_filter, nearest_cosine = nearest(kernels)
    return {
        "l1_norm": np.abs(flat).sum(axis=1).tolist(),
        "l2_norm": np.linalg.norm(flat, axis=1).tolist(),
        "mean_weight": flat.mean(axis=1).tolist(),
        "nearest_filter": nearest_filter,
        "nearest_cosine": nearest_cosine,
    }


def _nulls(values: NDArray[Any], unknown: NDArray[np.bool_]) -> list[Any]:
    """Return values as a list, null where they are unknown or NaN."""
    missing = unknown | np.isnan(values.astype(np.float64))
    return [None if gone else value for value, gone in zip(values.tolist(), missing, strict=True)]
