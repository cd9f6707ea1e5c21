"""Classes: the labels that occur, as indices without gaps, and their names."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cnn.data.base import Parts
from cnn.data.dataset import Split
from cnn.errors import DataError


def indexed(train: Split, test: Split, names: Mapping[int, str], where: str) -> Parts:
    """Return both parts with the labels that occur as indices, and the names of these classes.

    names: by label, where there are any; a class is else named as its label. where: what the
    error names. Raises DataError where there is one class, or a label without a name.
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
            f"{unnamed[0]}; mend the file or remove it"
        )
    train, test = (
        replace(part, labels=np.searchsorted(found, part.labels)) for part in (train, test)
    )
    return Parts(train, test, tuple(names.get(label, str(label)) for label in found.tolist()))
