"""The peers that are measured: functions that return a function, warmed up, that does the work.

`steps` takes n train steps. `training` trains once from a seed, tracing or building its graph
again, and returns the test accuracy. Unless stated otherwise, all train the same network on the
same images with the same batch size, Adam at 1e-4 and a dropout of one half, as in the notebook.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnn.data import idx

Steps = Callable[[int], None]
Training = Callable[[int], float]
N_TRAIN, N_WARM = 55_000, 25


def images(part: str = "train") -> NDArray[np.uint8]:
    """Return MNIST's images (n, 28, 28, 1): the 55,000 for training, or the test images, t10k."""
    return _read(f"{part}-images-idx3-ubyte.gz")[..., None][:N_TRAIN]


def labels(part: str = "train") -> NDArray[np.int64]:
    """Return their labels (n,)."""
    return _read(f"{part}-labels-idx1-ubyte.gz").astype(np.int64)[:N_TRAIN]


def folder() -> Path:
    """Return the folder of MNIST's files."""
    return Path(os.environ["FILTERSCOPE_MNIST_DIR"])


def _read(name: str) -> NDArray[np.uint8]:
    return np.asarray(idx.read(folder() / name))
