"""Loading a data set from four IDX files: element types, scale, orientation, label columns."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnn.errors import DataError
from tests.cnn.data import inputs

GOOD = inputs.good_set()


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail on any attempt to connect: local files never need the network."""

    def refuse(*_: Any) -> None:
        raise AssertionError("loading local files used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def changed(kind: str, change: Any) -> inputs.Arrays:
    """Return GOOD with a change to its `images` or `labels`."""
    return {name: change(a) if kind in name else a for name, a in GOOD.items()}


@pytest.mark.parametrize("code", inputs.CODES)
def test_all_element_types_give_the_same_data(tmp_path: Path, code: int) -> None:
    """The type says nothing about the scale; signed bytes hold only labels."""
    codes = {"labels": code, "images": 0x08 if code == 0x09 else code}
    inputs.assert_equal(inputs.load(inputs.write_set(tmp_path, GOOD, codes=codes)), GOOD)


DARK_TEST = {**GOOD, "t10k-images": np.minimum(GOOD["t10k-images"], 1)}


@pytest.mark.parametrize("code", [0x0D, 0x0E])
@pytest.mark.parametrize(
    ("files", "expected"),
    [(changed("images", lambda a: a / np.float32(255)), GOOD), (DARK_TEST, DARK_TEST)],
    ids=["0..1", "dark test images"],
)
def test_floats_are_scaled_if_neither_file_has_pixels_above_1(
    tmp_path: Path, files: inputs.Arrays, expected: inputs.Arrays, code: int
) -> None:
    """Training and test images share one scale; scaled pixels are within 1e-6 of full range."""
    dataset = inputs.load(inputs.write_set(tmp_path, files, codes={"images": code}))
    inputs.assert_equal(dataset, expected, tolerance=255e-6)


@pytest.mark.parametrize(("n_columns", "column"), [(8, 0), (8, 7), (2, 1)])
def test_several_columns_of_labels_need_a_choice(
    tmp_path: Path, n_columns: int, column: int
) -> None:
    """QMNIST's labels have eight columns: data.label_column names the one with the class."""

    def widened(labels: NDArray[Any]) -> NDArray[Any]:
        columns = np.arange(len(labels))[:, None] * np.arange(n_columns)
        columns[:, column] = labels
        return columns

    inputs.write_set(tmp_path, changed("labels", widened), codes={"labels": 0x0C})
    with pytest.raises(DataError, match=rf"shape \(60, {n_columns}\).*data\.label_column"):
        inputs.load(tmp_path)
    dataset = inputs.load(tmp_path, label_column=column)
    inputs.assert_equal(dataset, GOOD)
    assert dataset.origin["label_column"] == column


@pytest.mark.parametrize("size", [(28, 28), (32, 20)])
@pytest.mark.parametrize(
    ("prefix", "transpose", "transposed"),
    [
        ("emnist-digits-", None, True),
        ("EMNIST-balanced-", None, True),
        ("not-emnist-", None, False),
        ("", None, False),
        ("own-", True, True),
        ("emnist-", False, False),
    ],
)
def test_emnist_is_transposed_once_unless_a_setting_says_otherwise(
    tmp_path: Path, prefix: str, transpose: bool | None, transposed: bool, size: tuple[int, int]
) -> None:
    """Its files, known by their prefix, hold images with rows and columns swapped."""
    upright = inputs.good_set(size=size)
    swapped = {n: a.swapaxes(1, 2) if "images" in n else a for n, a in upright.items()}
    dataset = inputs.load(inputs.write_set(tmp_path, swapped, prefix), transpose=transpose)
    inputs.assert_equal(dataset, upright if transposed else swapped)
    assert dataset.origin["transposed"] is transposed


def test_labels_that_start_at_1_leave_no_empty_class(tmp_path: Path) -> None:
    """EMNIST's letters are 1..26: indices start at 0, and the mapping file names the labels."""
    inputs.write_set(tmp_path, changed("labels", lambda a: a + 1))
    dataset = inputs.load(tmp_path)
    assert dataset.class_names == tuple(str(label) for label in range(1, 11))
    inputs.assert_equal(dataset, GOOD)
    lines = (f"{label} {64 + label} {96 + label}\n" for label in range(1, 11))
    (tmp_path / "mapping.txt").write_text("".join(lines))
    assert inputs.load(tmp_path).class_names == tuple(a + a.lower() for a in "ABCDEFGHIJ")


@pytest.mark.parametrize(
    ("part", "n_images", "n_labels"), [("train", 60, 59), ("train", 59, 60), ("t10k", 20, 1)]
)
def test_different_numbers_of_images_and_labels_are_refused(
    tmp_path: Path, part: str, n_images: int, n_labels: int
) -> None:
    """The message names both counts and both files."""
    cut = {f"{part}-images": n_images, f"{part}-labels": n_labels}
    inputs.write_set(tmp_path, {name: a[: cut.get(name)] for name, a in GOOD.items()})
    with pytest.raises(DataError) as caught:
        inputs.load(tmp_path)
    message = str(caught.value)
    assert f"{n_images} images in {tmp_path}/{part}-images-idx3-ubyte.gz" in message
    assert f"{n_labels} labels in {tmp_path}/{part}-labels-idx1-ubyte.gz; each image" in message
