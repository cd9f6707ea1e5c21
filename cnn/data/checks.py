"""Checks that turn raw arrays into valid images and labels, or raise DataError naming the file."""

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
_UNIT = 1 + 1e-4  # the largest pixel of images in 0..1, with room for rounding
_CHUNK = 1 << 20  # pixels


def images(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return images as (n, h, w, c), pixels finite and in 0..255, still on the file's own scale.

    array: (n, h, w) or (n, h, w, c). Raises DataError naming the file and the images.
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
        first = "; are the channels first?" if array.shape[1] in (1, 3) else ""
        raise DataError(
            f"{path}: {array.shape[-1]} channels, shape {array.shape}; expected 1 (gray) or 3 "
            f"(RGB) as the last dimension{first}"
        )
    if array.dtype != np.uint8:
        _refuse_non_finite(array, path)
        _refuse_out_of_range(array, path)
    return array


def on_one_scale(arrays: Mapping[Path, NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the images of all files of a data set on one scale, 0..255, uint8 or float32.

    arrays: by file, as returned by `images`; converted in place. If no pixel of any file is
    above 1, all files are taken as 0..1, otherwise all as 0..255. Raises DataError if one file
    has fractions up to 1 and another has whole numbers above 1.
    """
    highest = {path: float(array.max()) for path, array in arrays.items()}
    unit = max(highest.values()) <= _UNIT
    if not unit:
        _refuse_two_scales(arrays, highest)
    return [_scaled(array, 255 if unit else 1) for array in arrays.values()]


def look_inverted(images: NDArray[Any]) -> bool:
    """Return whether most images (n, h, w, c) have a bright border around a darker middle."""
    n_bright = 0
    for part in _parts(images):
        frames = np.concatenate(
            [part[:, 0], part[:, -1], part[:, :, 0], part[:, :, -1]], axis=1
        ).mean(axis=(1, 2))
        n_bright += int(((frames > _HALF) & (frames > part.mean(axis=(1, 2, 3)))).sum())
    return 2 * n_bright > len(images)


def transposed(images: NDArray[Any]) -> NDArray[Any]:
    """Return images (n, h, w, c) with rows and columns swapped, in place if they are square."""
    if images.shape[1] != images.shape[2]:
        return np.ascontiguousarray(images.swapaxes(1, 2))
    for part in _parts(images):
        part[:] = part.swapaxes(1, 2).copy()
    return images


def labels(array: NDArray[Any], path: Path, column: int | None = None) -> NDArray[np.int64]:
    """Return labels as (n,) int64, from 0 up.

    array: (n,) or (n, columns). column: the one that holds the class, needed if there are
    several. Raises DataError naming the file and what was found.
    """
    array = _one_column(array, path, column)
    if len(array) == 0:
        raise DataError(f"{path}: no labels, the shape is {array.shape}")
    whole = np.isfinite(array) & (np.trunc(array) == array) & (array >= 0)
    if not whole.all():
        i = int(np.flatnonzero(~whole)[0])
        raise DataError(f"{path}: label {i} is {array[i]}; labels must be whole numbers from 0 up")
    if array.max() >= MAX_CLASSES:
        raise DataError(
            f"{path}: label {array.max()} is too large; the largest allowed is {MAX_CLASSES - 1:,}"
        )
    return array.astype(np.int64)


def same_count(n_images: int, images_path: Path, n_labels: int, labels_path: Path) -> None:
    """Raise DataError if the numbers of images and labels differ."""
    if n_images != n_labels:
        raise DataError(
            f"{n_images:,} images in {images_path}, but {n_labels:,} labels in {labels_path}; "
            "each image needs one label"
        )


def same_shape(train: NDArray[Any], train_path: Path, test: NDArray[Any], test_path: Path) -> None:
    """Raise DataError if training and test images differ in size or channels."""
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"images are {size_words(train.shape[1:])} in {train_path}, but "
            f"{size_words(test.shape[1:])} in {test_path}; all images must have the same size"
        )


def _one_column(array: NDArray[Any], path: Path, column: int | None) -> NDArray[Any]:
    if array.ndim == 2 and column is None and array.shape[1] == 1:
        column = 0
    if array.ndim == 2 and column is not None and column < array.shape[1]:
        return array[:, column]
    if array.ndim == 1 and column is None:
        return array
    looks = ": looks like images" if array.ndim >= 3 else ""
    expected = "labels have 1 dimension (n,), or (n, 1)"
    if array.ndim == 2 and column is None:
        expected += "; set data.label_column to the column of the class, counted from 0"
    elif column is not None:
        expected = f"data.label_column is {column}, but there is no such column"
    raise DataError(f"{path}: {_dimensions(array)}{looks}; {expected}")


def _refuse_non_finite(array: NDArray[Any], path: Path) -> None:
    if not np.issubdtype(array.dtype, np.floating):
        return
    finite = [np.isfinite(part).all(axis=(1, 2, 3)) for part in _parts(array)]
    bad = np.flatnonzero(~np.concatenate(finite))
    if len(bad):
        shown = ", ".join(str(i) for i in bad[:10]) + (", ..." if len(bad) > 10 else "")
        raise DataError(f"{path}: NaN or infinity in {len(bad):,} images: {shown}")


def _refuse_out_of_range(array: NDArray[Any], path: Path) -> None:
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > _WHITE:
        signed = array.dtype == np.int8 and low < 0
        remedy = (
            "the IDX type is 0x09 (signed bytes); bytes of 0..255 have the type 0x08"
            if signed
            else "rescale them first, because the numbers do not show what black and white are"
        )
        raise DataError(
            f"{path}: pixels from {low:g} to {high:g}; expected 0..255 or 0..1; {remedy}"
        )


def _refuse_two_scales(arrays: Mapping[Path, NDArray[Any]], highest: Mapping[Path, float]) -> None:
    """Raise DataError, or warn, if one file has no pixel above 1 and another does."""
    dark = [path for path in arrays if highest[path] <= _UNIT]
    bright = max(arrays, key=lambda path: highest[path])
    for path in dark:
        found = f"{path}: pixels up to {highest[path]:g}, but up to {highest[bright]:g} in {bright}"
        kinds = (arrays[path].dtype.kind, arrays[bright].dtype.kind)
        if kinds[0] == "f" and kinds[1] != "f" and _has_fractions(arrays[path]):
            raise DataError(f"{found}; all images of a data set must have the same scale")
        log.warning("%s; both are read as 0..255", found)


def _has_fractions(array: NDArray[Any]) -> bool:
    return any(bool((np.trunc(part) != part).any()) for part in _parts(array))


def _scaled(array: NDArray[Any], factor: int) -> NDArray[Any]:
    """Return pixels times a factor, capped at 255, as uint8 or float32, in their own memory."""
    dtype = np.float32 if np.issubdtype(array.dtype, np.floating) else np.uint8
    if array.dtype == dtype and factor == 1:
        return array
    pixels = array.reshape(-1)
    scaled = pixels.view(dtype)[: pixels.size]
    for start in range(0, pixels.size, _CHUNK):
        part = np.multiply(pixels[start : start + _CHUNK], factor, dtype=np.float64)
        scaled[start : start + _CHUNK] = np.minimum(part, _WHITE)
    return scaled.reshape(array.shape)


def _parts(images: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield images (n, h, w, c) in chunks of about a million pixels."""
    n = max(1, _CHUNK // int(np.prod(images.shape[1:])))
    for start in range(0, len(images), n):
        yield images[start : start + n]


def _dimensions(array: NDArray[Any]) -> str:
    plural = "" if array.ndim == 1 else "s"
    return f"{array.ndim} dimension{plural}, shape {array.shape}, {len(array):,} items"
