"""The 1,797 scanned digits that ship with scikit-learn, enlarged to MNIST's format.

8 x 8 pixels of 0..16 become a 20 x 20 box of 0..255 in a 28 x 28 image, with the
centre of mass in its middle (http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import hashlib
import importlib.util
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn.config.run import DataConfig
from cnn.data import classes, splits
from cnn.data.base import TEST_FRACTION, Parts, Source
from cnn.data.dataset import Split
from cnn.errors import DataError

_SIDE, _BOX = 28, 20


class Digits(Source):
    """The source `digits`; a seventh of each class becomes the test images."""

    @classmethod
    def identify(cls, config: DataConfig, downloads: Path) -> Self:
        """Return the source; raise DataError if scikit-learn's file is missing."""
        return cls("digits", {"digits": digest()})

    def load(self, split_seed: int) -> Parts:
        """Return the scans, enlarged."""
        images, labels = read()
        scans = Split(images, labels, np.arange(len(labels)))
        train, test = scans.divide(*splits.stratified(labels, TEST_FRACTION, split_seed))
        return classes.indexed(train, test, {}, self.name)


def path() -> Path:
    """Return the path of scikit-learn's digits, without importing scikit-learn."""
    spec = importlib.util.find_spec("sklearn")
    folders = spec.submodule_search_locations if spec else None
    found = Path(folders[0]) / "datasets/data/digits.csv.gz" if folders else None
    if found is None or not found.is_file():
        raise DataError("scikit-learn's digits.csv.gz is missing; reinstall scikit-learn")
    return found


def digest() -> str:
    """Return the SHA-256 of the digits file, unpacked."""
    return hashlib.sha256(gzip.decompress(path().read_bytes())).hexdigest()


def read() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (1797, 28, 28, 1), pixels 0..255, and labels (1797,)."""
    with gzip.open(path(), "rt", encoding="ascii") as stream:
        table = np.loadtxt(stream, delimiter=",", dtype=np.int64)
    scans = table[:, :-1].reshape(-1, 8, 8)
    return np.stack([enlarge(scan) for scan in scans]), table[:, -1]


def enlarge(scan: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return a scan (8, 8), pixels 0..16, as an image (28, 28, 1), pixels 0..255."""
    source = Image.fromarray((scan * (255 / 16)).astype(np.float32))
    box = np.asarray(source.resize((_BOX, _BOX), Image.Resampling.BICUBIC))
    box = np.clip(np.rint(box), 0, 255).astype(np.uint8)
    image = np.zeros((_SIDE, _SIDE, 1), np.uint8)
    top, left = (_offset(box.sum(axis=1 - axis, dtype=np.float64)) for axis in (0, 1))
    image[top : top + _BOX, left : left + _BOX, 0] = box
    return image


def _offset(profile: NDArray[np.float64]) -> int:
    """Return the box's offset that puts its centre of mass in the middle of the image."""
    mass = profile.sum()
    centre = (profile @ np.arange(_BOX)) / mass if mass else (_BOX - 1) / 2
    return int(np.clip(np.rint((_SIDE - 1) / 2 - centre), 0, _SIDE - _BOX))
