"""A million images in batches, and the positions found in them, for every peer that mines."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import peers
from cnn.data import dataset as datasets
from cnn.data.dataset import Dataset, Split

# For each filter, activations by position: the index among all positions of that filter.
Found = list[dict[int, float]]
BATCH, K, N_IMAGES = 1000, 12, 1_000_000


def write(folder: Path) -> None:
    """Write copies of MNIST's 10,000 test images as one array."""
    test = peers.images("t10k")
    whole = np.lib.format.open_memmap(
        folder / "images.npy", "w+", np.uint8, (N_IMAGES, *test.shape[1:])
    )
    for first in range(0, N_IMAGES, len(test)):
        whole[first : first + len(test)] = test
    whole.flush()


def write_dataset(folder: Path) -> None:
    """Write a data set as a run does, with that array as its test images."""
    one = Split(peers.images("t10k")[:1], np.zeros(1, np.int64), np.zeros(1, np.int64))
    place = folder / "dataset"
    place.mkdir()
    datasets.write(place, Dataset("tiled", ("any",), dict.fromkeys(datasets.SPLITS, one), {}))
    (place / "test-images.npy").unlink()
    (place / "test-images.npy").hardlink_to(folder / "images.npy")


def images(folder: str) -> NDArray[np.uint8]:
    """Return the images (n, 28, 28, 1), mapped from the file."""
    # PyTorch warns about read-only arrays; nothing writes to this one.
    whole: NDArray[np.uint8] = np.load(Path(folder) / "images.npy", mmap_mode="c")
    return whole


def as_found(strengths: NDArray[np.float32], places: NDArray[np.int64]) -> Found:
    """Return the positions in arrays (filters, k), without those that do not fire."""
    return [
        {place: strength for place, strength in zip(*pair, strict=True) if strength > 0}
        for pair in zip(places.tolist(), strengths.tolist(), strict=True)
    ]
