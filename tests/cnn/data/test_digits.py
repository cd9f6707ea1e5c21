"""The scans that ship with scikit-learn, as images in MNIST's format."""

import gzip
import hashlib
import importlib.util
from importlib import resources

import numpy as np
import pytest
from sklearn.datasets import load_digits

from cnn.data import digits
from cnn.errors import DataError


def centre(image: np.ndarray) -> np.ndarray:
    """Return the centre of mass (y, x) of an image (h, w)."""
    grid = np.indices(image.shape).reshape(2, -1)
    return (grid * image.ravel()).sum(axis=1) / image.sum()


def test_the_scans_are_scikit_learns() -> None:
    """All 1,797 are read, in order, with their labels, and each has the ink of its scan."""
    images, labels = digits.read()
    reference = load_digits()
    assert (images.shape, images.dtype) == ((1797, 28, 28, 1), np.uint8)
    np.testing.assert_array_equal(labels, reference.target)
    ink = images.sum(axis=(1, 2, 3), dtype=np.float64)
    scanned = reference.images.sum(axis=(1, 2)) * (255 / 16) * (20 / 8) ** 2
    np.testing.assert_allclose(ink, scanned, rtol=0.1)


def test_the_digest_is_of_the_unpacked_file() -> None:
    """The key depends on the data, not on how they are packed."""
    packed = resources.files("sklearn.datasets.data") / "digits.csv.gz"
    unpacked = gzip.decompress(packed.read_bytes())
    assert digits.digest() == hashlib.sha256(unpacked).hexdigest()


def test_the_centre_of_mass_is_in_the_middle_of_the_image() -> None:
    """Every digit is shifted as MNIST's are, to the nearest pixel."""
    images, _ = digits.read()
    offsets = [np.abs(centre(image[..., 0].astype(float)) - 13.5).max() for image in images]
    assert max(offsets) <= 0.5 + 1e-6


def test_a_scan_is_enlarged_upright_into_a_box_of_20() -> None:
    """Rows stay rows, columns stay columns, 16 becomes 255, and a scan without ink stays so."""
    scan = np.full((8, 8), 16)
    scan[:, 4:] = 8
    image = digits.enlarge(scan)[..., 0]
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    assert np.ptp(rows) == np.ptp(columns) == 19
    box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert (box[:, :7] == 255).all()
    assert (box[:, -5:] == 128).all()
    assert not digits.enlarge(np.zeros((8, 8), np.int64)).any()


def test_a_missing_file_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """If scikit-learn is incomplete, the message says so."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="reinstall scikit-learn"):
        digits.read()
