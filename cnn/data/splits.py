"""Seeded, stratified splits: reproducible, and sound for images sorted by class too."""

import numpy as np
from numpy.typing import NDArray


def stratified(
    labels: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices kept and the indices held out, both ascending.

    labels: (n,). The held-out part of each class is within one image of its share. If the
    fraction is above 0, a class of two or more images appears on both sides. In total,
    round(n * fraction) images are held out, unless a small class would have no image on one side.
    """
    rng = np.random.default_rng(seed)
    n_held_out = _allot(labels, fraction)
    held_out = [
        rng.permutation(np.flatnonzero(labels == label))[:n] for label, n in n_held_out.items()
    ]
    mask = np.zeros(len(labels), bool)
    mask[np.concatenate([np.empty(0, np.int64), *held_out])] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _allot(labels: NDArray[np.int64], fraction: float) -> dict[int, int]:
    """Return the number of held-out images of each class, by the largest remainder method."""
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * fraction
    n_held_out = np.floor(shares).astype(int)
    missing = round(len(labels) * fraction) - int(n_held_out.sum())
    by_remainder = np.argsort(n_held_out - shares, kind="stable")
    n_held_out[by_remainder[: max(missing, 0)]] += 1
    if fraction > 0:
        n_held_out = np.clip(n_held_out, np.minimum(counts - 1, 1), np.maximum(counts - 1, 0))
    return {int(label): int(n) for label, n in zip(classes, n_held_out, strict=True)}
