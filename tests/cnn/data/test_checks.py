"""What makes arrays images and labels, and how the rest is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnn.data import checks
from cnn.errors import DataError

PATH = Path("folder/train-file")


def with_nan(*images: int) -> NDArray[np.float32]:
    array = np.zeros((5000, 2, 2), np.float32)
    array[list(images), 1, 1] = np.nan
    return array


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.array([[[0, 255]]], np.uint8), np.array([0, 255], np.uint8)),
        (np.array([[[0, 255]]], np.int16), np.array([0, 255], np.float32)),
        (np.array([[[0, 0.2, 1]]], np.float32), np.array([0, 51, 255], np.float32)),
        (np.array([[[0, 0.5, 2]]], np.float64), np.array([0, 0.5, 2], np.float32)),
        (np.array([[[0, 1]]], np.int32), np.array([0, 1], np.float32)),
    ],
    ids=["bytes", "whole numbers", "floats in 0..1", "floats in 0..255", "whole 0 and 1"],
)
def test_pixels_become_0_to_255(array: NDArray[Any], wanted: NDArray[Any]) -> None:
    """Bytes stay as they are, floats of 0..1 are scaled once, everything else is float32."""
    images = checks.images(array, PATH)
    assert images.shape == (*array.shape, 1)
    assert images.dtype == wanted.dtype
    np.testing.assert_allclose(images.ravel(), wanted, rtol=1e-6)


def test_colour_images_keep_their_channels() -> None:
    """Three channels at the end are colour."""
    array = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    np.testing.assert_array_equal(checks.images(array, PATH), array)


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.zeros(60, np.uint8), "1 dimension, shape (60,), 60 items: looks like labels"),
        (np.zeros((2, 2), np.uint8), "2 dimensions, shape (2, 2), 2 items; images have 3"),
        (np.zeros((0, 2, 2), np.uint8), "no images, the shape is (0, 2, 2)"),
        (np.zeros((2, 0, 2), np.uint8), "no images, the shape is (2, 0, 2)"),
        (np.zeros((2, 3, 3, 2), np.uint8), "2 channels; 1 (gray) or 3 (RGB) are expected"),
        (np.full((2, 3, 3), -1, np.int8), "pixels from -1 to -1; 0..255 or 0..1 are expected"),
        (np.full((2, 3, 3), 256, np.int16), "pixels from 256 to 256"),
        (with_nan(13, 4999), "NaN or infinity in 2 images: 13, 4999"),
        (with_nan(*range(2, 13)), "in 11 images: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ..."),
        (np.full((1, 2, 2), np.inf), "NaN or infinity in 1 images: 0"),
    ],
)
def test_what_are_no_images_is_refused(array: NDArray[Any], wanted: str) -> None:
    """The message names the file, what was found and, for bad pixels, the images."""
    with pytest.raises(DataError) as caught:
        checks.images(array, PATH)
    assert str(caught.value).startswith(f"{PATH}: ")
    assert wanted in str(caught.value)


@pytest.mark.parametrize(
    "array",
    [
        np.array([0, 9, 3], np.uint8),
        np.array([[0], [9], [3]], np.int32),
        np.array([0.0, 9.0, 3.0], np.float64),
    ],
    ids=["bytes", "one column", "whole floats"],
)
def test_labels_become_one_row_of_whole_numbers(array: NDArray[Any]) -> None:
    """Any numeric type holds labels if each is a whole number from 0 on."""
    labels = checks.labels(array, PATH)
    assert (labels.dtype, labels.tolist()) == (np.int64, [0, 9, 3])


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (
            np.zeros((60, 28, 28), np.uint8),
            "3 dimensions, shape (60, 28, 28), 60 items: looks like",
        ),
        (np.zeros((60, 8), np.int32), "2 dimensions, shape (60, 8), 60 items; labels have 1"),
        (np.zeros(0, np.uint8), "no labels, the shape is (0,)"),
        (np.zeros((0, 1), np.uint8), "no labels"),
        (np.array([0, 1.5]), "label 1 is 1.5; whole numbers from 0 on are expected"),
        (np.array([0, 0, -1], np.int8), "label 2 is -1; whole numbers"),
        (np.array([np.nan]), "label 0 is nan; whole numbers"),
        (np.array([np.inf]), "label 0 is inf; whole numbers"),
        (np.array([10_000], np.int32), "label 10000 is above the largest, 999"),
        (np.array([1e300]), "is above the largest, 999"),
    ],
)
def test_what_are_no_labels_is_refused(array: NDArray[Any], wanted: str) -> None:
    """The message names the file and the first bad label."""
    with pytest.raises(DataError) as caught:
        checks.labels(array, PATH)
    assert str(caught.value).startswith(f"{PATH}: ")
    assert wanted in str(caught.value)


def test_images_and_labels_must_be_as_many() -> None:
    """Both counts and both files are named."""
    checks.same_count(60, Path("a"), 60, Path("b"))
    with pytest.raises(DataError, match="60 images in a, but 59 labels in b; each image needs"):
        checks.same_count(60, Path("a"), 59, Path("b"))


def test_training_and_test_images_must_have_one_size() -> None:
    """The number of images may differ, height, width and channels may not."""
    train, test = np.zeros((5, 28, 28, 1)), np.zeros((2, 28, 28, 1))
    checks.same_shape(train, Path("a"), test, Path("b"))
    with pytest.raises(DataError, match="images are 28 x 28 x 1 in a, but 28 x 28 x 3 in b"):
        checks.same_shape(train, Path("a"), np.zeros((2, 28, 28, 3)), Path("b"))
