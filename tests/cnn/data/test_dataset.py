"""A data set on disk and back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnn.data import dataset
from cnn.data.dataset import Dataset, Split


def split(*labels: int, first: int = 0) -> Split:
    n = len(labels)
    images = np.arange(n * 6, dtype=np.uint8).reshape(n, 2, 3, 1) + first
    return Split(images, np.array(labels, np.int64), np.arange(first, first + n))


@pytest.fixture
def small() -> Dataset:
    """Three classes, one of them without images, and no validation images."""
    parts = {"train": split(0, 2, 2), "validation": split(), "test": split(2, 0, first=7)}
    return Dataset("small", ("a", "b", "c"), parts, {"name": "small", "transposed": False})


def test_what_is_written_is_read_back(tmp_path: Path, small: Dataset) -> None:
    """Names, origin and all arrays survive, an empty split too; arrays are read-only maps."""
    dataset.write(tmp_path, small)
    read = dataset.read(tmp_path)
    assert read.image_shape == (2, 3, 1)
    for field in ("name", "class_names", "origin", "files"):
        assert getattr(read, field) == getattr(small, field)
    for name in dataset.SPLITS:
        for part in ("images", "labels", "ids"):
            array = getattr(read.splits[name], part)
            np.testing.assert_array_equal(array, getattr(small.splits[name], part), strict=True)
            assert isinstance(array, np.memmap)
            assert not array.flags.writeable


def test_the_description_counts_every_class(tmp_path: Path, small: Dataset) -> None:
    """dataset.json is readable without NumPy and lists classes without images too."""
    dataset.write(tmp_path, small)
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert description["n_images"] == {"train": 3, "validation": 0, "test": 2}
    assert description["class_counts"]["train"] == [1, 0, 2]
    assert description["class_counts"]["validation"] == [0, 0, 0]
    assert description["image_shape"] == [2, 3, 1]


def test_taking_images_keeps_labels_and_ids_beside_them() -> None:
    """The three arrays are indexed together, in the order of the indices."""
    taken = split(5, 6, 7, first=10).take(np.array([2, 0]))
    assert (taken.labels.tolist(), taken.ids.tolist(), len(taken)) == ([7, 5], [12, 10], 2)
    assert taken.images[:, 0, 0, 0].tolist() == [22, 10]


@pytest.mark.parametrize("n", [7, 300])
def test_dividing_equals_taking_but_reuses_the_memory(n: int, rng: np.random.Generator) -> None:
    """Each image keeps its label and id, whatever the number of chunks that are moved."""
    images = rng.integers(0, 256, (n, 300, 200, 1), np.uint8)
    whole = Split(images, rng.integers(0, 9, n), np.arange(n) + 5)
    chosen = rng.random(n) < 0.3
    kept, held_out = np.flatnonzero(~chosen), np.flatnonzero(chosen)
    taken = [Split(images.copy(), whole.labels, whole.ids).take(i) for i in (kept, held_out)]
    divided = whole.divide(kept, held_out)
    for part, expected in zip(divided, taken, strict=True):
        for name in ("images", "labels", "ids"):
            np.testing.assert_array_equal(getattr(part, name), getattr(expected, name))
    assert np.shares_memory(divided[0].images, images)


def test_the_description_lists_the_files_of_the_images(tmp_path: Path, small: Dataset) -> None:
    """dataset.json maps image ids to files, if images are files of their own."""
    dataset.write(tmp_path, small)
    assert "files" not in json.loads((tmp_path / "dataset.json").read_text())
    dataset.write(tmp_path, replace(small, files=("a/ä.png", "b/x.png")))
    assert json.loads((tmp_path / "dataset.json").read_text())["files"][0] == "a/ä.png"
    assert dataset.read(tmp_path).files == ("a/ä.png", "b/x.png")
