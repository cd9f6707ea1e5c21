"""Which images make up which batch: a function of seed and step alone."""

import numpy as np
from numpy.typing import NDArray


def batches(
    seed: int, n_images: int, batch_size: int, first_step: int, n_steps: int
) -> NDArray[np.int32]:
    """Return the image indices of consecutive batches, (n_steps, batch_size).

    The batches are drawn from consecutive permutations of all images, one an epoch, and
    a batch may span two: after k epochs every image was seen k times.
    """
    start, stop = first_step * batch_size, (first_step + n_steps) * batch_size
    epochs = range(start // n_images, -(-stop // n_images))
    drawn = np.concatenate([_permutation(seed, epoch, n_images) for epoch in epochs])
    offset = start - epochs.start * n_images
    return drawn[offset : offset + stop - start].reshape(n_steps, batch_size)


def _permutation(seed: int, epoch: int, n_images: int) -> NDArray[np.int32]:
    return np.random.default_rng([seed, epoch]).permutation(n_images).astype(np.int32)
