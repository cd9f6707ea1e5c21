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
    """Three classes, one of them never seen, and no validation images."""
    parts = {"train": split(0, 2, 2), "validation": split(), "test": split(2, 0, first=7)}
    return Dataset("small", ("a", "b", "c"), parts, {"name": "small", "transposed": False})


def test_what_is_written_is_read_back(tmp_path: Path, small: Dataset) -> None:
    """Names, origin and all arrays survive, an empty split too."""
    dataset.write(tmp_path, small)
    read = dataset.read(tmp_path)
    assert (read.name, read.class_names, read.origin) == (
        small.name,
        small.class_names,
        small.origin,
    )
    assert read.image_shape == (2, 3, 1)
    for name in dataset.SPLITS:
        for part in ("images", "labels", "ids"):
            found = getattr(read.splits[name], part)
            wanted = getattr(small.splits[name], part)
            np.testing.assert_array_equal(found, wanted, strict=True)


def test_arrays_are_mapped_and_read_only(tmp_path: Path, small: Dataset) -> None:
    """A reader takes no memory for what it does not touch, and changes nothing on disk."""
    dataset.write(tmp_path, small)
    images = dataset.read(tmp_path).splits["train"].images
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 1


def test_the_description_counts_every_class(tmp_path: Path, small: Dataset) -> None:
    """dataset.json tells without NumPy what is there, classes without images too."""
    dataset.write(tmp_path, small)
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert description["n_images"] == {"train": 3, "validation": 0, "test": 2}
    assert description["class_counts"]["train"] == [1, 0, 2]
    assert description["class_counts"]["validation"] == [0, 0, 0]
    assert description["image_shape"] == [2, 3, 1]


def test_taking_images_keeps_labels_and_ids_beside_them() -> None:
    """The three arrays are indexed together and in the order asked for."""
    taken = split(5, 6, 7, first=10).take(np.array([2, 0]))
    assert (taken.labels.tolist(), taken.ids.tolist(), len(taken)) == ([7, 5], [12, 10], 2)
    assert taken.images[:, 0, 0, 0].tolist() == [22, 10]


@pytest.mark.parametrize("n", [7, 300])
def test_dividing_gives_what_taking_gives_in_the_memory_of_all(
    n: int, rng: np.random.Generator
) -> None:
    """However many parts are moved, each image keeps its label and id; none is copied but few."""
    images = rng.integers(0, 256, (n, 300, 200, 1), np.uint8)
    whole = Split(images, rng.integers(0, 9, n), np.arange(n) + 5)
    chosen = rng.random(n) < 0.3
    kept, held_out = np.flatnonzero(~chosen), np.flatnonzero(chosen)
    wanted = [Split(images.copy(), whole.labels, whole.ids).take(i) for i in (kept, held_out)]
    found = whole.divide(kept, held_out)
    for found_part, wanted_part in zip(found, wanted, strict=True):
        for name in ("images", "labels", "ids"):
            np.testing.assert_array_equal(getattr(found_part, name), getattr(wanted_part, name))
    assert np.shares_memory(found[0].images, images)


def test_files_of_the_images_stand_in_the_description(tmp_path: Path, small: Dataset) -> None:
    """dataset.json tells which file an image id is; older ones without files are read too."""
    dataset.write(tmp_path, small)
    assert "files" not in json.loads((tmp_path / "dataset.json").read_text())
    assert dataset.read(tmp_path).files == ()
    dataset.write(tmp_path, replace(small, files=("a/ä.png", "b/x.png")))
    assert json.loads((tmp_path / "dataset.json").read_text())["files"][0] == "a/ä.png"
    assert dataset.read(tmp_path).files == ("a/ä.png", "b/x.png")
