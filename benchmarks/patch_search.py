"""Compares a run's patches with a full sort, and with the search of the original notebook.

    python -m benchmarks.patch_search RUN_FOLDER TEST_IMAGES.idx3

Shares no code with cnn.explain: it convolves the raw kernel in NumPy float64 and sorts all
activations of each filter.
"""

import argparse
import gzip
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CLOSE = 1e-4  # activations nearer than this may swap ranks between float32 and float64
_CHUNK = 500


def main() -> None:
    """Print the comparison; end with 1 where the run's patches are not the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    arguments = parser.parse_args()
    kernel, bias, stride = _first_layer(arguments.run)
    images = _read_images(arguments.images)
    activations = _activations(images, kernel, bias, stride)
    table = pd.read_parquet(arguments.run / "tables/patches.parquet")
    n_filters, k = activations.shape[-1], int(table["rank"].max())
    worst, n_swapped = _compare(table, activations, k)
    print(f"{len(table)} patches of {n_filters} filters on {len(images):,} images")
    print(f"largest difference of an activation to float64: {worst:.2e}")
    print(f"ranks held by another position whose activation differs by more: {n_swapped}")
    started = time.perf_counter()
    found = _notebook_search(activations[..., :5], k)
    true = np.sort(activations[..., :5].ravel())[::-1][:k]
    n_right = sum(value in true for value in found)
    print(
        f"the notebook's search, filters 0 to 4 in one list: {n_right} of the list's {k} best "
        f"({time.perf_counter() - started:.1f} s); its list {np.round(found, 3).tolist()}, "
        f"the best {np.round(true, 3).tolist()}"
    )
    per_filter = [
        int(np.isin(np.sort(activations[..., f].ravel())[-k:], found).sum()) for f in range(5)
    ]
    print(f"of each filter's own {k} best, that list has {per_filter}")
    raise SystemExit(worst > CLOSE or n_swapped > 0)


def _first_layer(run: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    import keras

    layer = keras.models.load_model(run / "model/model.keras").get_layer("conv1")
    weights = [np.asarray(weight, np.float64) for weight in layer.get_weights()]
    kernel = weights[0]
    bias = weights[1] if len(weights) > 1 else np.zeros(kernel.shape[-1])
    return kernel, bias, layer.strides[0]


def _read_images(path: Path) -> NDArray[np.float64]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    n, height, width = np.frombuffer(raw, ">u4", 3, 4)
    return np.frombuffer(raw, np.uint8, offset=16).reshape(n, height, width) / 255


def _activations(
    images: NDArray[np.float64],
    kernel: NDArray[np.float64],
    bias: NDArray[np.float64],
    stride: int,
) -> NDArray[np.float64]:
    """Return activations after the ReLU, (images, y, x, filters)."""
    side = kernel.shape[0]
    flat = kernel.reshape(side * side, -1)
    parts = []
    for start in range(0, len(images), _CHUNK):
        windows = np.lib.stride_tricks.sliding_window_view(
            images[start : start + _CHUNK], (side, side), axis=(1, 2)
        )[:, ::stride, ::stride]
        parts.append(np.maximum(windows.reshape(*windows.shape[:3], -1) @ flat + bias, 0))
    return np.concatenate(parts)


def _compare(table: pd.DataFrame, activations: NDArray[np.float64], k: int) -> tuple[float, int]:
    """Return the largest difference of an activation, and how many ranks are held wrongly."""
    worst, n_swapped = 0.0, 0
    for number in range(activations.shape[-1]):
        rows = table[table["filter"] == number].sort_values("rank")
        values = activations[..., number]
        n_best = min(k, int((values > 0).sum()))
        if len(rows) != n_best:
            raise SystemExit(f"filter {number} has {len(rows)} patches, {n_best} are expected")
        if n_best == 0:
            continue
        order = np.argsort(-values.ravel(), kind="stable")[:n_best]
        best = np.stack(np.unravel_index(order, values.shape), axis=1)
        ours = rows[["image_id", "y", "x"]].to_numpy()
        true = values.ravel()[order]
        worst = max(worst, float(np.abs(rows["activation"].to_numpy() - true).max()))
        differs = (best != ours).any(axis=1)
        n_swapped += int((np.abs(values[tuple(ours.T)] - true)[differs] > CLOSE).sum())
    return worst, n_swapped


def _notebook_search(activations: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return the list that the notebook ends with.

    It walks over all positions of all its filters with one list of k entries, and writes a
    new activation over the first entry that is smaller, where it should move the rest down.
    """
    best = np.zeros(k)
    for value in activations.transpose(0, 3, 1, 2).ravel():
        if value > best.min():
            best[np.argmax(best < value)] = value
    return best


if __name__ == "__main__":
    main()
