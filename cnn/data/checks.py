"""Turns raw arrays into images and labels that the rest may rely on, or refuses them by name."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.errors import DataError
from cnn.formatting import size_words

log = logging.getLogger(__name__)

MAX_CLASSES = 1_000
_WHITE, _HALF = 255.0, 127.5
_UNIT = 1 + 1e-4  # the largest pixel of images in 0..1, rounding included
_CHUNK = 1 << 20  # pixels


def images(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return images as (n, h, w, c), their pixels finite and in 0..255, on the file's own scale.

    array: (n, h, w) or (n, h, w, c). Raises DataError naming file and images.
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
        first = "; do the channels stand first?" if array.shape[1] in (1, 3) else ""
        raise DataError(
            f"{path}: {array.shape[-1]} channels, shape {array.shape}; 1 (gray) or 3 (RGB) are "
            f"expected, as the last dimension{first}"
        )
    if array.dtype != np.uint8:
        _refuse_non_finite(array, path)
        _refuse_out_of_range(array, path)
    return array


def on_one_scale(arrays: Mapping[Path, NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the images of all files of a data set on one scale, 0..255, uint8 or float32.

    arrays: by file, as `images` returns them; their memory is used again. Where no pixel of
    any file is above 1, all are taken as 0..1, else all as 0..255. Raises DataError where a
    file of fractions up to 1 stands beside one of whole numbers above 1.
    """
    highest = {path: float(array.max()) for path, array in arrays.items()}
    unit = max(highest.values()) <= _UNIT
    if not unit:
        _look_for_two_scales(arrays, highest)
    return [_scaled(array, 255 if unit else 1) for array in arrays.values()]


def look_inverted(images: NDArray[Any]) -> bool:
    """Return whether most images (n, h, w, c) have bright borders around darker middles."""
    n_bright = 0
    for part in _parts(images):
        frames = np.concatenate(
            [part[:, 0], part[:, -1], part[:, :, 0], part[:, :, -1]], axis=1
        ).mean(axis=(1, 2))
        n_bright += int(((frames > _HALF) & (frames > part.mean(axis=(1, 2, 3)))).sum())
    return 2 * n_bright > len(images)


def transposed(images: NDArray[Any]) -> NDArray[Any]:
    """Return images (n, h, w, c) with rows and columns exchanged, in their memory if square."""
    if images.shape[1] != images.shape[2]:
        return np.ascontiguousarray(images.swapaxes(1, 2))
    for part in _parts(images):
        part[:] = part.swapaxes(1, 2).copy()
    return images


def labels(array: NDArray[Any], path: Path, column: int | None = None) -> NDArray[np.int64]:
    """Return labels as (n,) int64: whole numbers from 0 on.

    array: (n,), or (n, columns), of which `column` holds the class; one column needs no
    choice. Raises DataError naming the file and what was found.
    """
    array = _one_column(array, path, column)
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
            f"images are {size_words(train.shape[1:])} in {train_path}, but "
            f"{size_words(test.shape[1:])} in {test_path}; all images must have one size"
        )


def _one_column(array: NDArray[Any], path: Path, column: int | None) -> NDArray[Any]:
    if array.ndim == 2 and column is None and array.shape[1] == 1:
        column = 0
    if array.ndim == 2 and column is not None and column < array.shape[1]:
        return array[:, column]
    if array.ndim == 1 and column is None:
        return array
    looks = ": looks like images" if array.ndim >= 3 else ""
    wanted = "labels have 1 dimension (n,), or (n, 1)"
    if array.ndim == 2 and column is None:
        wanted += "; say with data.label_column which column holds the class, counted from 0"
    elif column is not None:
        wanted = f"there is no column {column}, which data.label_column names"
    raise DataError(f"{path}: {_dimensions(array)}{looks}; {wanted}")


def _refuse_non_finite(array: NDArray[Any], path: Path) -> None:
    if not np.issubdtype(array.dtype, np.floating):
        return
    finite = [np.isfinite(part).all(axis=(1, 2, 3)) for part in _parts(array)]
    found = np.flatnonzero(~np.concatenate(finite))
    if len(found):
        shown = ", ".join(str(i) for i in found[:10]) + (", ..." if len(found) > 10 else "")
        raise DataError(f"{path}: NaN or infinity in {len(found):,} images: {shown}")


def _refuse_out_of_range(array: NDArray[Any], path: Path) -> None:
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > _WHITE:
        signed = array.dtype == np.int8 and low < 0
        remedy = (
            "bytes of 0..255 have the IDX type 0x08, and this file says 0x09, which is signed"
            if signed
            else "scale them first: what black and white are cannot be told from the numbers"
        )
        raise DataError(
            f"{path}: pixels from {low:g} to {high:g}; 0..255 or 0..1 are expected; {remedy}"
        )


def _look_for_two_scales(
    arrays: Mapping[Path, NDArray[Any]], highest: Mapping[Path, float]
) -> None:
    """Refuse or warn where a file reaches no further than 1 and another goes beyond."""
    dark = [path for path in arrays if highest[path] <= _UNIT]
    bright = max(arrays, key=lambda path: highest[path])
    for path in dark:
        found = f"{path}: pixels up to {highest[path]:g}, but up to {highest[bright]:g} in {bright}"
        kinds = (arrays[path].dtype.kind, arrays[bright].dtype.kind)
        if kinds[0] == "f" and kinds[1] != "f" and _has_fractions(arrays[path]):
            raise DataError(f"{found}; all images of a data set must have one scale")
        log.warning("%s; both are taken as 0..255", found)


def _has_fractions(array: NDArray[Any]) -> bool:
    return any(bool((np.trunc(part) != part).any()) for part in _parts(array))


def _scaled(array: NDArray[Any], factor: int) -> NDArray[Any]:
    """Return pixels times a factor, at most 255, as uint8 or float32, in the memory they have."""
    wanted = np.float32 if np.issubdtype(array.dtype, np.floating) else np.uint8
    if array.dtype == wanted and factor == 1:
        return array
    pixels = array.reshape(-1)
    made = pixels.view(wanted)[: pixels.size]
    for start in range(0, pixels.size, _CHUNK):
        part = np.multiply(pixels[start : start + _CHUNK], factor, dtype=np.float64)
        made[start : start + _CHUNK] = np.minimum(part, _WHITE)
    return made.reshape(array.shape)


def _parts(images: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield images (n, h, w, c) in parts of a few MB."""
    n = max(1, _CHUNK // int(np.prod(images.shape[1:])))
    for start in range(0, len(images), n):
        yield images[start : start + n]


def _dimensions(array: NDArray[Any]) -> str:
    plural = "" if array.ndim == 1 else "s"
    return f"{array.ndim} dimension{plural}, shape {array.shape}, {len(array):,} items"
