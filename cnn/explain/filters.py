"""Describe each filter's kernel and its activations on images (step export_filters)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import progress
from cnn.data.dataset import Dataset
from cnn.explain import activations
from cnn.explain.statistics import ActivationStats
from cnn.model_io.keras_types import Model
from cnn.tables import parquet

SPLIT = "test"
LEVELS = {"activation_median": 0.5, "activation_p90": 0.9, "activation_p99": 0.99}
N_BINS = 20


@dataclass(frozen=True)
class Filters:
    """One layer's kernels (filters, h, w, channels), and one table row per filter."""

    layer: str
    kernels: NDArray[np.float32]
    rows: list[dict[str, Any]]


def describe(
    model: Model, layer: str, dataset: Dataset, report: progress.Report = progress.ignore
) -> Filters:
    """Return a layer's kernels, and how each filter responds to the test images."""
    split = dataset.splits[SPLIT]
    kernels = activations.kernels(model, layer)
    stats = ActivationStats(len(kernels), len(dataset.class_names))
    for batch in activations.stream(model, layer, split.images):
        stats.add(batch, np.asarray(split.labels[batch.start : batch.stop]))
        report(progress.Progress(batch.stop, len(split)))
    columns = _kernel_columns(kernels) | _activation_columns(stats)
    rows = [
        {"layer": layer, "filter": i, "split": SPLIT}
        | {name: values[i] for name, values in columns.items()}
        for i in range(len(kernels))
    ]
    return Filters(layer, kernels, rows)


def write(folder: Path, described: Sequence[Filters]) -> list[dict[str, Any]]:
    """Write one array of kernels per layer, and one table of all filters; return its rows."""
    for item in described:
        np.save(folder / f"filters-{item.layer}.npy", item.kernels, allow_pickle=False)
    rows = [row for item in described for row in item.rows]
    parquet.write_rows(folder / "filters.parquet", "filters", rows)
    return rows


def nearest(similarity: NDArray[np.float64]) -> tuple[list[int | None], list[float | None]]:
    """Return each filter's most similar other filter, and that similarity.

    similarity: (filters, filters), NaN where undefined. Both are None for a filter whose
    similarity to every other filter is undefined.
    """
    is_self = np.eye(len(similarity), dtype=bool)
    others = np.where(np.isnan(similarity) | is_self, -np.inf, similarity)
    best = others.argmax(axis=1)
    pairs = [(int(j), float(others[i, j])) for i, j in enumerate(best)]
    return (
        [j if np.isfinite(value) else None for j, value in pairs],
        [value if np.isfinite(value) else None for _, value in pairs],
    )


def cosines(kernels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine similarity of every pair of kernels, NaN if one of them is all zeros."""
    flat = kernels.reshape(len(kernels), -1).astype(np.float64)
    norms = np.linalg.norm(flat, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip((flat @ flat.T) / np.outer(norms, norms), -1, 1)


def selectivity(class_means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the class selectivity index of each filter, 0..1.

    (largest class mean - mean of the others) / (their sum), Morcos et al. 2018, "On the
    importance of single directions for generalization", section 3.2. class_means: (classes,
    filters), mean response to each class that has images. NaN for a filter that never fires, and
    if there is only one class.
    """
    largest = class_means.max(axis=0)
    with np.errstate(invalid="ignore"):
        others = (class_means.sum(axis=0) - largest) / np.float64(len(class_means) - 1)
        index: NDArray[np.float64] = (largest - others) / (largest + others)
    return np.clip(index, 0, 1)


def smoothness(kernels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how similar neighbouring weights are: 1 smooth, 0 noise, below 0 alternating.

    Moran's I over horizontally and vertically adjacent weights of the same channel: Moran 1950,
    "Notes on continuous stochastic phenomena". kernels: (filters, h, w, channels). NaN if every
    channel is constant.
    """
    from_first = np.float64(kernels) - kernels[:, :1, :1]  # exactly 0 in a constant channel
    apart = from_first - from_first.mean(axis=(1, 2), keepdims=True)
    along_y, along_x = apart[:, 1:] * apart[:, :-1], apart[:, :, 1:] * apart[:, :, :-1]
    n_pairs = along_y[0].size + along_x[0].size
    products = along_y.sum(axis=(1, 2, 3)) + along_x.sum(axis=(1, 2, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = (products / n_pairs) / (apart**2).mean(axis=(1, 2, 3))
    return found


def _kernel_columns(kernels: NDArray[np.float32]) -> dict[str, list[Any]]:
    flat = kernels.reshape(len(kernels), -1).astype(np.float64)
    nearest_filter, nearest_cosine = nearest(cosines(kernels))
    return {
        "l1_norm": np.abs(flat).sum(axis=1).tolist(),
        "l2_norm": np.linalg.norm(flat, axis=1).tolist(),
        "mean_weight": flat.mean(axis=1).tolist(),
        "smoothness": _nulls(smoothness(kernels)),
        "nearest_filter": nearest_filter,
        "nearest_cosine": nearest_cosine,
    }


def _activation_columns(stats: ActivationStats) -> dict[str, list[Any]]:
    present = np.flatnonzero(stats.n_images)
    class_means = stats.class_means
    dead = stats.fraction_active == 0
    preferred = present[class_means[present].argmax(axis=0)]
    correlated, correlation = nearest(stats.correlation.correlations())
    quantiles = stats.quantiles(np.array(list(LEVELS.values())))
    return {
        "dead": dead.tolist(),
        "fraction_active": stats.fraction_active.tolist(),
        "max_activation": stats.largest.tolist(),
        "mean_activation": stats.mean_response.tolist(),
        **dict(zip(LEVELS, quantiles.T.tolist(), strict=True)),
        "histogram": stats.histogram(N_BINS).tolist(),
        "class_means": [_nulls(means) for means in class_means.T],
        "selectivity": _nulls(selectivity(class_means[present])),
        "preferred_label": _nulls(np.where(dead, np.nan, preferred)),
        "sparsity": _nulls(stats.lifetime_sparsity),
        "population_sparsity": _nulls(np.full(len(dead), stats.population_sparsity)),
        "correlated_filter": correlated,
        "correlation": correlation,
    }


def _nulls(values: NDArray[np.float64]) -> list[Any]:
    """Return values as a list, None where they are NaN."""
    return [None if np.isnan(value) else value for value in values.tolist()]
