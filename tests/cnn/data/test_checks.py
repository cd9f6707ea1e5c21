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


def scaled(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the images of several files, checked and on one scale."""
    paths = [Path(f"{PATH}{i}") for i in range(len(arrays))]
    checked = {path: checks.images(array, path) for path, array in zip(paths, arrays, strict=True)}
    return checks.on_one_scale(checked)


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.array([[[0, 255]]], np.uint8), np.array([0, 255], np.uint8)),
        (np.array([[[0, 127]]], np.int8), np.array([0, 127], np.uint8)),
        (np.array([[[0, 255]]], np.int16), np.array([0, 255], np.uint8)),
        (np.array([[[0, 255, 3]]], np.int32), np.array([0, 255, 3], np.uint8)),
        (np.array([[[0, 0.2, 1]]], np.float32), np.array([0, 51, 255], np.float32)),
        (np.array([[[0, 0.2, 1]]], np.float64), np.array([0, 51, 255], np.float32)),
        (np.array([[[0, 1.00001]]], np.float32), np.array([0, 255], np.float32)),
        (np.array([[[0, 0.5, 2]]], np.float64), np.array([0, 0.5, 2], np.float32)),
        (np.array([[[0, 0.5, 1.5]]], np.float32), np.array([0, 0.5, 1.5], np.float32)),
        *(
            (np.array([[[0, 1]]], kind), np.array([0, 255], np.uint8))
            for kind in ("u1", "i1", "i4")
        ),
    ],
)
def test_pixels_become_0_to_255(array: NDArray[Any], wanted: NDArray[Any]) -> None:
    """Whole numbers become bytes, others float32; what ends at 1 is scaled once, rounding aside."""
    (images,) = scaled(array.copy())
    assert images.shape == (*array.shape, 1)
    assert images.dtype == wanted.dtype
    np.testing.assert_allclose(images.ravel(), wanted, rtol=1e-6)


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8"])
def test_a_big_array_is_scaled_in_its_own_memory(kind: str, rng: np.random.Generator) -> None:
    """Parts that are converted one after another give what one conversion gives."""
    array = rng.integers(0, 256, (3, 1000, 700)).astype(kind)
    (images,) = scaled(array.copy())
    np.testing.assert_array_equal(images[..., 0], array)
    (images,) = scaled(array > 127) if kind == "u1" else scaled((array > 127).astype(kind))
    np.testing.assert_array_equal(images[..., 0], 255 * (array > 127))


@pytest.mark.parametrize("kind", ["u1", "i4", "f4", "f8"])
@pytest.mark.parametrize("dark_first", [True, False])
def test_one_scale_rules_over_both_files(
    kind: str, dark_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that happens to end at 1 beside one of 0..255 is not scaled; a warning names both."""
    dark, bright = np.array([[[0, 1]]], kind), np.array([[[0, 255]]], kind)
    images = scaled(*((dark, bright) if dark_first else (bright, dark)))
    found = [float(part.max()) for part in images]
    assert found == ([1, 255] if dark_first else [255, 1])
    (warning,) = caplog.messages
    assert f"{PATH}{0 if dark_first else 1}: pixels up to 1, but up to 255 in " in warning


def test_two_files_that_both_end_at_1_are_scaled_alike() -> None:
    """Whole 0 and 1 in one file and fractions in the other are one data set of 0..1."""
    first, second = scaled(np.array([[[0, 1]]], "i4"), np.array([[[0, 0.4]]], "f4"))
    assert first.ravel().tolist() == [0, 255]
    np.testing.assert_allclose(second.ravel(), [0, 102], rtol=1e-6)


def test_fractions_up_to_1_beside_bytes_are_refused() -> None:
    """One file was scaled and the other was not: both are named."""
    with pytest.raises(
        DataError, match=r"train-file1: pixels up to 0\.9, but up to 255 in .*file0;"
    ):
        scaled(np.array([[[0, 255]]], "u1"), np.array([[[0, 0.9]]], "f4"))


def framed(border: int, middle: int, n: int, shape: tuple[int, ...] = (9, 7, 1)) -> NDArray[Any]:
    images = np.full((n, *shape), border, np.uint8)
    images[:, 2:-2, 2:-2] = middle
    return images


@pytest.mark.parametrize(
    ("images", "wanted"),
    [
        (framed(255, 0, 3), True),
        (framed(200, 100, 3, (40, 40, 3)), True),
        (framed(255, 0, 3).astype(np.float32), True),
        (np.concatenate([framed(255, 0, 3), framed(0, 255, 2)]), True),
        (np.concatenate([framed(255, 0, 2), framed(0, 255, 2)]), False),
        (framed(0, 255, 3), False),
        (framed(120, 0, 3), False),
        (framed(200, 255, 3), False),
        (np.full((3, 1, 1, 1), 255, np.uint8), False),
    ],
)
def test_bright_borders_on_most_images_look_inverted(images: NDArray[Any], wanted: bool) -> None:
    """Most means more than half, and a border counts where it outshines its middle."""
    assert checks.look_inverted(images) is wanted


@pytest.mark.parametrize("shape", [(5, 4, 4, 1), (5, 3, 4, 3), (3, 700, 700, 1)])
def test_transposing_exchanges_rows_and_columns(
    shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    """Channels stay where they are; square images are turned where they lie."""
    images = rng.integers(0, 256, shape, np.uint8)
    wanted = images.transpose(0, 2, 1, 3).copy()
    turned = checks.transposed(images)
    np.testing.assert_array_equal(turned, wanted)
    assert turned.flags.c_contiguous
    assert np.shares_memory(turned, images) == (shape[1] == shape[2])


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
        (
            np.zeros((2, 3, 3, 2), np.uint8),
            "2 channels, shape (2, 3, 3, 2); 1 (gray) or 3 (RGB) are",
        ),
        (np.zeros((2, 3, 28, 28), np.uint8), "28 channels, shape (2, 3, 28, 28); 1 (gray) or 3"),
        (np.zeros((2, 3, 28, 28), np.uint8), "do the channels stand first?"),
        (np.full((2, 3, 3), -1, np.int8), "0x08, and this file says 0x09, which is signed"),
        (np.full((2, 3, 3), 4095, np.int16), "from 4095 to 4095; 0..255 or 0..1 are expected; sca"),
        (np.full((2, 3, 3), -0.1, np.float32), "pixels from -0.1 to -0.1"),
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


@pytest.mark.parametrize("column", [0, 7])
def test_a_column_of_several_is_chosen(column: int) -> None:
    """Labels with eight columns, as QMNIST's, are read where the class stands."""
    array = np.arange(24, dtype=np.int32).reshape(3, 8)
    assert checks.labels(array, PATH, column).tolist() == [column, 8 + column, 16 + column]


@pytest.mark.parametrize("shape", [(3, 8), (3, 1), (3,), (3, 2, 2)])
def test_a_column_that_is_not_there_is_refused(shape: tuple[int, ...]) -> None:
    """The message names the shape and the setting."""
    with pytest.raises(DataError) as caught:
        checks.labels(np.zeros(shape, np.int32), PATH, 8)
    assert f"shape {shape}" in str(caught.value)
    assert "there is no column 8, which data.label_column names" in str(caught.value)


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (
            np.zeros((60, 28, 28), np.uint8),
            "3 dimensions, shape (60, 28, 28), 60 items: looks like",
        ),
        (
            np.zeros((60, 8), np.int32),
            "2 dimensions, shape (60, 8), 60 items; labels have 1 dimension (n,), or (n, 1); say",
        ),
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
