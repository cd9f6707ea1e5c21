"""Case 06: IDX element types other than ubyte, labels that are not 1-D."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnn.data import idx
from cnn.errors import DataError
from tests.cases import inputs

GOOD = inputs.good_set()
VALUES = np.arange(2 * 3 * 4).reshape(2, 3, 4) * 5


def changed(kind: str, change: Any) -> inputs.Arrays:
    return {name: change(a) if kind in name else a for name, a in GOOD.items()}


@pytest.mark.parametrize("code", inputs.CODES)
@pytest.mark.parametrize("packed", [False, True])
def test_all_six_types_give_the_same_values(tmp_path: Path, code: int, packed: bool) -> None:
    """Native byte order, writable, exact."""
    path = tmp_path / "values"
    content = inputs.idx_bytes(VALUES, code)
    path.write_bytes(inputs.packed(content) if packed else content)
    array = idx.read(path)
    assert array.dtype == np.dtype(inputs.CODES[code]).newbyteorder("=")
    assert array.dtype.isnative
    assert array.flags.writeable
    np.testing.assert_array_equal(array, VALUES)


@pytest.mark.parametrize("code", [0x00, 0x0A, 0x0F, 0xFF])
def test_an_unknown_type_is_refused_with_its_code(tmp_path: Path, code: int) -> None:
    """0x0A was never given a meaning."""
    path = tmp_path / "values"
    path.write_bytes(bytes([0, 0, code, 1, 0, 0, 0, 4]) + b"abcd")
    with pytest.raises(DataError, match=f"{path}: unknown IDX element type 0x{code:02X}; known"):
        idx.read(path)


@pytest.mark.parametrize("code", inputs.CODES)
def test_labels_of_every_type_are_read(tmp_path: Path, code: int) -> None:
    """Big-endian int32 labels, as QMNIST's, are whole numbers and not garbage."""
    inputs.assert_equal(inputs.load(inputs.write_set(tmp_path, GOOD, codes={"labels": code})), GOOD)


@pytest.mark.parametrize("code", [0x0B, 0x0C, 0x0D, 0x0E])
def test_images_of_0_to_255_of_every_type_are_read(tmp_path: Path, code: int) -> None:
    """The type of the elements says nothing about black and white."""
    inputs.assert_equal(inputs.load(inputs.write_set(tmp_path, GOOD, codes={"images": code})), GOOD)


@pytest.mark.parametrize("code", [0x0D, 0x0E])
def test_floats_of_0_to_1_are_not_scaled_again(tmp_path: Path, code: int) -> None:
    """What enters the network is within 1e-6 of the bytes divided by 255."""
    unit = changed("images", lambda a: a / np.float32(255))
    dataset = inputs.load(inputs.write_set(tmp_path, unit, codes={"images": code}))
    inputs.assert_equal(dataset, GOOD, tolerance=255e-6)


def test_a_dark_test_file_does_not_change_the_scale(tmp_path: Path) -> None:
    """Whether floats are 0..1 is decided once, over training and test images."""
    dark = {**GOOD, "t10k-images": np.minimum(GOOD["t10k-images"], 1)}
    dataset = inputs.load(inputs.write_set(tmp_path, dark, codes={"images": 0x0D}))
    inputs.assert_equal(dataset, dark)


@pytest.mark.parametrize(("low", "high"), [(0, 4095), (0, 65535), (-1, 200), (-128, 127)])
def test_pixels_of_another_range_are_refused(tmp_path: Path, low: int, high: int) -> None:
    """12 or 16 bits cannot be told apart by the numbers, so nothing is guessed."""
    wide = changed("images", lambda a: np.where(a == a.max(), high, np.where(a == 0, low, 0)))
    inputs.write_set(tmp_path, wide, codes={"images": 0x0C})
    with pytest.raises(DataError, match=f"train-images.*: pixels from {low} to {high}; 0..255 or"):
        inputs.load(tmp_path)


def test_one_column_of_labels_is_flattened(tmp_path: Path) -> None:
    """(n, 1) is what some tools write for (n,)."""
    column = changed("labels", lambda a: a[:, None])
    inputs.assert_equal(inputs.load(inputs.write_set(tmp_path, column)), GOOD)


def wide_labels(labels: NDArray[Any], n_columns: int, column: int) -> NDArray[Any]:
    columns = np.arange(len(labels))[:, None] * np.arange(n_columns)
    columns[:, column] = labels
    return columns


@pytest.mark.parametrize(("n_columns", "column"), [(8, 0), (8, 7), (2, 1)])
def test_several_columns_of_labels_need_a_choice(
    tmp_path: Path, n_columns: int, column: int
) -> None:
    """Without one the shape is named; with one the data are what they were."""
    wide = changed("labels", lambda a: wide_labels(a, n_columns, column))
    inputs.write_set(tmp_path, wide, codes={"labels": 0x0C})
    with pytest.raises(DataError, match=rf"shape \(60, {n_columns}\).*data\.label_column"):
        inputs.load(tmp_path)
    dataset = inputs.load(tmp_path, label_column=column)
    inputs.assert_equal(dataset, GOOD)
    assert dataset.origin["label_column"] == column


def test_float_labels_must_be_whole(tmp_path: Path) -> None:
    """Half a class is none."""
    halves = changed("labels", lambda a: a + np.float32(0.5))
    inputs.write_set(tmp_path, halves, codes={"labels": 0x0D})
    with pytest.raises(DataError, match=r"label 0 is 0\.5; whole numbers from 0 on are expected"):
        inputs.load(tmp_path)
