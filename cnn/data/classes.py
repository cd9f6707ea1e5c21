"""Turn the labels that occur into class indices without gaps, and name the classes."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cnn.data.base import Parts
from cnn.data.dataset import Split
from cnn.errors import DataError


def indexed(train: Split, test: Split, names: Mapping[int, str], where: str) -> Parts:
    """Return both parts with class indices for labels, and the names of the classes.

    names: by label; if empty, each class is named after its label. where: the folder or data
    set that an error names. Raises DataError if there is only one class, or a label has no name.
    """
    found = np.union1d(train.labels, test.labels)
    if len(found) < 2:
        raise DataError(
            f"{where}: all images have the label {found[0]}; at least 2 classes are needed"
        )
    unnamed = [label for label in found.tolist() if label not in names]
    if names and unnamed:
        raise DataError(
            f"{where}: the file of class names, *mapping.txt, has no line for the label "
            f"{unnamed[0]}; fix the file or remove it"
        )
    train, test = (
        replace(part, labels=np.searchsorted(found, part.labels)) for part in (train, test)
    )
    return Parts(train, test, tuple(names.get(label, str(label)) for label in found.tolist()))
