"""Raw arrays become valid images and labels, or are refused with the file's name."""

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
    ("array", "expected"),
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
def test_pixels_become_0_to_255(array: NDArray[Any], expected: NDArray[Any]) -> None:
    """Integers become bytes, floats float32; pixels up to 1, with room for rounding, are scaled."""
    (images,) = scaled(array.copy())
    assert images.shape == (*array.shape, 1)
    assert images.dtype == expected.dtype
    np.testing.assert_allclose(images.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8"])
def test_a_big_array_is_scaled_chunk_by_chunk(kind: str, rng: np.random.Generator) -> None:
    """Converting in chunks, in place, gives the same pixels as one conversion."""
    array = rng.integers(0, 256, (3, 1000, 700)).astype(kind)
    (images,) = scaled(array.copy())
    np.testing.assert_array_equal(images[..., 0], array)
    (images,) = scaled((array > 127).astype(kind))
    np.testing.assert_array_equal(images[..., 0], 255 * (array > 127))


@pytest.mark.parametrize("kind", ["u1", "i4", "f4", "f8"])
@pytest.mark.parametrize("dark_first", [True, False])
def test_both_files_have_one_scale(
    kind: str, dark_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A file without pixels above 1 is not scaled if the other has some; a warning names both."""
    dark, bright = np.array([[[0, 1]]], kind), np.array([[[0, 255]]], kind)
    images = scaled(*((dark, bright) if dark_first else (bright, dark)))
    assert [float(part.max()) for part in images] == ([1, 255] if dark_first else [255, 1])
    (warning,) = caplog.messages
    assert f"{PATH}{0 if dark_first else 1}: pixels up to 1, but up to 255 in " in warning


def test_two_files_without_pixels_above_1_are_both_scaled() -> None:
    """One has only the integers 0 and 1, the other fractions: together they are 0..1."""
    first, second = scaled(np.array([[[0, 1]]], "i4"), np.array([[[0, 0.4]]], "f4"))
    assert first.ravel().tolist() == [0, 255]
    np.testing.assert_allclose(second.ravel(), [0, 102], rtol=1e-6)


def test_fractions_up_to_1_beside_bytes_are_refused() -> None:
    """Only one of the files was scaled to 0..1: the message names both."""
    with pytest.raises(DataError, match=r"file1: pixels up to 0\.9, but up to 255 in .*file0;"):
        scaled(np.array([[[0, 255]]], "u1"), np.array([[[0, 0.9]]], "f4"))


def framed(border: int, middle: int, n: int, shape: tuple[int, ...] = (9, 7, 1)) -> NDArray[Any]:
    images = np.full((n, *shape), border, np.uint8)
    images[:, 2:-2, 2:-2] = middle
    return images


@pytest.mark.parametrize(
    ("images", "inverted"),
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
def test_bright_borders_on_most_images_look_inverted(images: NDArray[Any], inverted: bool) -> None:
    """Most means more than half; a bright border counts if it is brighter than the middle."""
    assert checks.look_inverted(images) is inverted


@pytest.mark.parametrize("shape", [(5, 4, 4, 1), (5, 3, 4, 3), (3, 700, 700, 1)])
def test_transposing_swaps_rows_and_columns(
    shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    """Channels stay last; square images are transposed in place."""
    images = rng.integers(0, 256, shape, np.uint8)
    expected = images.transpose(0, 2, 1, 3).copy()
    transposed = checks.transposed(images)
    np.testing.assert_array_equal(transposed, expected)
    assert transposed.flags.c_contiguous
    assert np.shares_memory(transposed, images) == (shape[1] == shape[2])


def test_colour_images_keep_their_channels() -> None:
    array = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    np.testing.assert_array_equal(checks.images(array, PATH), array)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(60, np.uint8), "1 dimension, shape (60,), 60 items: looks like labels"),
        (np.zeros((2, 2), np.uint8), "2 dimensions, shape (2, 2), 2 items; images have 3"),
        (np.zeros((0, 2, 2), np.uint8), "no images, the shape is (0, 2, 2)"),
        (np.zeros((2, 0, 2), np.uint8), "no images, the shape is (2, 0, 2)"),
        (np.zeros((2, 3, 3, 2), np.uint8), "2 channels, shape (2, 3, 3, 2); expected 1 (gray) or"),
        (np.zeros((2, 3, 28, 28), np.uint8), "28 channels, shape (2, 3, 28, 28); expected 1 (gray"),
        (np.zeros((2, 3, 28, 28), np.uint8), "are the channels first?"),
        (np.array([[[-128, 127]]], np.int8), "the IDX type is 0x09 (signed bytes)"),
        (np.array([[[-128, 127]]], np.int8), "from -128 to 127; expected 0..255 or 0..1"),
        (
            np.array([[[0, 4095]]], np.int16),
            "from 0 to 4095; expected 0..255 or 0..1; rescale them",
        ),
        (np.array([[[-1, 200]]], np.int32), "pixels from -1 to 200"),
        (np.array([[[-0.1, 1]]], np.float32), "pixels from -0.1 to 1"),
        (np.array([[[0, 256]]], np.int16), "pixels from 0 to 256"),
        (with_nan(13, 4999), "NaN or infinity in 2 images: 13, 4999"),
        (with_nan(*range(2, 13)), "in 11 images: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ..."),
        (np.full((1, 2, 2), np.inf), "NaN or infinity in 1 images: 0"),
    ],
)
def test_bad_images_are_refused(array: NDArray[Any], message: str) -> None:
    """The message names the file, what was found and, for bad pixels, the images."""
    with pytest.raises(DataError) as caught:
        checks.images(array, PATH)
    assert str(caught.value).startswith(f"{PATH}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "array",
    [
        np.array([0, 9, 3], np.uint8),
        np.array([[0], [9], [3]], np.int32),
        np.array([0.0, 9.0, 3.0], np.float64),
    ],
    ids=["bytes", "one column", "whole floats"],
)
def test_labels_become_one_row_of_int64(array: NDArray[Any]) -> None:
    """Any numeric type can hold labels if they are whole numbers from 0 up."""
    labels = checks.labels(array, PATH)
    assert (labels.dtype, labels.tolist()) == (np.int64, [0, 9, 3])


@pytest.mark.parametrize("shape", [(3, 8), (3, 1), (3,), (3, 2, 2)])
def test_a_column_that_does_not_exist_is_refused(shape: tuple[int, ...]) -> None:
    """The message names the shape and the setting."""
    with pytest.raises(DataError) as caught:
        checks.labels(np.zeros(shape, np.int32), PATH, 8)
    assert f"shape {shape}" in str(caught.value)
    assert "data.label_column is 8, but there is no such column" in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((9, 8, 8), np.uint8),
            "3 dimensions, shape (9, 8, 8), 9 items: looks like images",
        ),
        (
            np.zeros((60, 8), np.int32),
            "2 dimensions, shape (60, 8), 60 items; labels have 1 dimension (n,), or (n, 1); set",
        ),
        (np.zeros(0, np.uint8), "no labels, the shape is (0,)"),
        (np.zeros((0, 1), np.uint8), "no labels"),
        (np.array([0, 1.5]), "label 1 is 1.5; labels must be whole numbers from 0 up"),
        (np.array([0, 0, -1], np.int8), "label 2 is -1; labels must"),
        (np.array([np.nan]), "label 0 is nan; labels must"),
        (np.array([np.inf]), "label 0 is inf; labels must"),
        (np.array([10_000], np.int32), "label 10000 is too large; the largest allowed is 999"),
        (np.array([1e300]), "is too large; the largest allowed is 999"),
    ],
)
def test_bad_labels_are_refused(array: NDArray[Any], message: str) -> None:
    """The message names the file and the first bad label."""
    with pytest.raises(DataError) as caught:
        checks.labels(array, PATH)
    assert str(caught.value).startswith(f"{PATH}: ")
    assert message in str(caught.value)


def test_training_and_test_images_must_have_the_same_size() -> None:
    """Their number may differ, but not height, width and channels."""
    train, test = np.zeros((5, 28, 28, 1)), np.zeros((2, 28, 28, 1))
    checks.same_shape(train, Path("a"), test, Path("b"))
    with pytest.raises(DataError, match="images are 28 x 28 x 1 in a, but 28 x 28 x 3 in b"):
        checks.same_shape(train, Path("a"), np.zeros((2, 28, 28, 3)), Path("b"))
