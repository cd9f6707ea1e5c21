"""Turns raw arrays into images and labels that the rest may rely on, or refuses them by name."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.errors import DataError

MAX_CLASSES = 1_000
_CHUNK = 4096


def images(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return images as (n, h, w, c), pixels 0..255, uint8 or float32.

    array: (n, h, w) or (n, h, w, c). Floats in 0..1 are scaled to 0..255; other floats
    are taken as 0..255. Raises DataError naming file and images.
    """
    if array.ndim not in (3, 4):
        looks = ": looks like labels" if array.ndim == 1 else ""
        raise DataError(
            f"{path}: {_dimensions(array)}{looks}; images have 3 dimensions (n, height, width) "
            "or 4 (n, height, width, channels)"
        )
    if 0 in array.shape:
        raise DataError(f"{path}: no images, the shape is {array.shape}")
    if array.ndim == 3:
        array = array[..., None]
    if array.shape[-1] not in (1, 3):
        raise DataError(f"{path}: {array.shape[-1]} channels; 1 (gray) or 3 (RGB) are expected")
    if array.dtype == np.uint8:
        return array
    _refuse_non_finite(array, path)
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 255:
        raise DataError(f"{path}: pixels from {low:g} to {high:g}; 0..255 or 0..1 are expected")
    unit = np.issubdtype(array.dtype, np.floating) and high <= 1
    pixels: NDArray[np.float32] = np.multiply(array, 255 if unit else 1, dtype=np.float32)
    return pixels


def labels(array: NDArray[Any], path: Path) -> NDArray[np.int64]:
    """Return labels as (n,) int64; array: (n,) or (n, 1), whole numbers from 0 on.

    Raises DataError naming the file and what was found.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        looks = ": looks like images" if array.ndim >= 3 else ""
        raise DataError(
            f"{path}: {_dimensions(array)}{looks}; labels have 1 dimension (n,), or (n, 1)"
        )
    if len(array) == 0:
        raise DataError(f"{path}: no labels, the shape is {array.shape}")
    whole = np.isfinite(array) & (np.trunc(array) == array) & (array >= 0)
    if not whole.all():
        i = int(np.flatnonzero(~whole)[0])
        raise DataError(f"{path}: label {i} is {array[i]}; whole numbers from 0 on are expected")
    if array.max() >= MAX_CLASSES:
        raise DataError(f"{path}: label {array.max()} is above the largest, {MAX_CLASSES - 1:,}")
    return array.astype(np.int64)


def same_count(n_images: int, images_path: Path, n_labels: int, labels_path: Path) -> None:
    """Raise DataError where images and labels are not as many."""
    if n_images != n_labels:
        raise DataError(
            f"{n_images:,} images in {images_path}, but {n_labels:,} labels in {labels_path}; "
            "each image needs one label"
        )


def same_shape(train: NDArray[Any], train_path: Path, test: NDArray[Any], test_path: Path) -> None:
    """Raise DataError where training and test images differ in size or channels."""
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"images are {_size(train)} in {train_path}, but {_size(test)} in {test_path}; "
            "all images must have one size"
        )


def _refuse_non_finite(array: NDArray[Any], path: Path) -> None:
    if not np.issubdtype(array.dtype, np.floating):
        return
    starts = range(0, len(array), _CHUNK)
    finite = [np.isfinite(array[i : i + _CHUNK]).all(axis=(1, 2, 3)) for i in starts]
    found = np.flatnonzero(~np.concatenate(finite))
    if len(found):
        shown = ", ".join(str(i) for i in found[:10]) + (", ..." if len(found) > 10 else "")
        raise DataError(f"{path}: NaN or infinity in {len(found):,} images: {shown}")


def _dimensions(array: NDArray[Any]) -> str:
    plural = "" if array.ndim == 1 else "s"
    return f"{array.ndim} dimension{plural}, shape {array.shape}, {len(array):,} items"


def _size(images: NDArray[Any]) -> str:
    return " x ".join(str(n) for n in images.shape[1:])
