"""A data set in memory and on disk: images, labels and ids of three splits."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")
_CHUNK = 1 << 22  # bytes


@dataclass(frozen=True)
class Split:
    """Images of one split with their labels and ids.

    images: (n, h, w, c), uint8 or float32, pixels 0..255. labels: (n,) int64, indices
    into the class names. ids: (n,) int64, each image's index in the file it came from, or
    in the data set's list of files if each image is its own file.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> "Split":
        """Return the images at `indices`, in that order."""
        return Split(self.images[indices], self.labels[indices], self.ids[indices])

    def cut(self, n: int) -> tuple["Split", "Split"]:
        """Return the first n images, and the rest."""
        first, second = slice(n), slice(n, None)
        return (
            Split(self.images[first], self.labels[first], self.ids[first]),
            Split(self.images[second], self.labels[second], self.ids[second]),
        )

    def divide(
        self, kept: NDArray[np.int64], held_out: NDArray[np.int64]
    ) -> tuple["Split", "Split"]:
        """Return the images at `kept` and those at `held_out`; do not use this split afterwards.

        Both are ascending. The kept images move forward within the present array, so that
        memory never holds a big data set twice.
        """
        second = self.take(held_out)
        n_at_once = max(1, _CHUNK // (self.images[:1].nbytes or 1))
        for start in range(0, len(kept), n_at_once):
            part = kept[start : start + n_at_once]
            self.images[start : start + len(part)] = self.images[part]
        first = Split(self.images[: len(kept)], self.labels[kept], self.ids[kept])
        return first, second


@dataclass(frozen=True)
class Dataset:
    """A named data set: class names, the three splits, and where it came from.

    files: paths below the data folder, by image id; empty unless each image is its own file.
    """

    name: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    origin: Mapping[str, Any]
    files: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.splits["test"].images.shape[1:]
        return height, width, channels

    def class_counts(self, split: str) -> list[int]:
        """Return the number of images of each class."""
        labels = self.splits[split].labels
        return [int(n) for n in np.bincount(labels, minlength=len(self.class_names))]


def write(folder: Path, dataset: Dataset) -> None:
    """Write a data set as .npy files that can be memory-mapped, and `dataset.json`."""
    for name, split in dataset.splits.items():
        for part in ("images", "labels", "ids"):
            np.save(folder / f"{name}-{part}.npy", getattr(split, part), allow_pickle=False)
    description = {
        "name": dataset.name,
        "class_names": list(dataset.class_names),
        "image_shape": list(dataset.image_shape),
        "n_images": {name: len(split) for name, split in dataset.splits.items()},
        "class_counts": {name: dataset.class_counts(name) for name in dataset.splits},
        "origin": dict(dataset.origin),
    }
    if dataset.files:
        description["files"] = list(dataset.files)
    (folder / "dataset.json").write_text(json.dumps(description, indent=2), encoding="utf-8")


def read(folder: Path) -> Dataset:
    """Return the data set that `write` wrote, its arrays memory-mapped and read-only."""
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    splits = {
        name: Split(
            *(_mapped(folder / f"{name}-{part}.npy") for part in ("images", "labels", "ids"))
        )
        for name in SPLITS
    }
    return Dataset(
        description["name"],
        tuple(description["class_names"]),
        splits,
        description["origin"],
        tuple(description.get("files", ())),
    )


def _mapped(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
