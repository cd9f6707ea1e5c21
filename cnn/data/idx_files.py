"""Loading a data set from its four IDX files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.data import checks, classes, idx
from cnn.data.base import Parts
from cnn.data.dataset import Split
from cnn.errors import DataError


@dataclass(frozen=True)
class IdxFiles:
    """The four IDX files of a data set by role, their expected digests, and how to read them.

    transposed: whether rows and columns of the images are swapped in the files. label_column:
    the column that holds the class, if the labels have several. class_names: by label; empty if
    a class is named after its label.
    """

    paths: Mapping[str, Path]
    digests: Mapping[str, str]
    transposed: bool = False
    label_column: int | None = None
    class_names: Mapping[int, str] = field(default_factory=dict)

    def load(self, name: str) -> Parts:
        """Return images and labels, checked; raises DataError naming the file and the problem."""
        images = {}
        for part in ("train", "test"):
            path = self.paths[f"{part}-images"]
            images[path] = checks.images(self._read(f"{part}-images"), path)
        (train_path, train), (test_path, test) = images.items()
        checks.same_shape(train, train_path, test, test_path)
        train, test = checks.on_one_scale(images)
        where = str(self.paths["train-labels"].parent) if self.class_names else name
        return classes.indexed(
            self._with_labels("train", train),
            self._with_labels("test", test),
            self.class_names,
            where,
        )

    def _with_labels(self, part: str, images: NDArray[Any]) -> Split:
        path = self.paths[f"{part}-labels"]
        labels = checks.labels(self._read(f"{part}-labels"), path, self.label_column)
        checks.same_count(len(images), self.paths[f"{part}-images"], len(labels), path)
        if self.transposed:
            images = checks.transposed(images)
        return Split(images, labels, np.arange(len(labels)))

    def _read(self, role: str) -> NDArray[Any]:
        payload = idx.load(self.paths[role])
        if payload.sha256 != self.digests[role]:
            raise DataError(
                f"{self.paths[role]}: the file changed while the run was starting: its SHA-256 is "
                f"{payload.sha256}, expected {self.digests[role]}; start the run again"
            )
        return payload.array
