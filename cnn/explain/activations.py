"""Activations of one layer for many images, a batch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import weights

BATCH = 1000


@dataclass(frozen=True)
class Batch:
    """Activations (n, y, x, filters) of the images from `start` on."""

    start: int
    values: NDArray[np.float32]


def stream(model: Any, layer: str, images: NDArray[Any]) -> Iterator[Batch]:
    """Yield the activations of a layer, computing only the layers up to it.

    images: (n, h, w, c), pixels 0..255. Batches begin at multiples of BATCH and the last
    one is computed padded, so that an image's activations do not depend on the others'.
    Raises ArtifactError where a weight is not finite.
    """
    import keras
    import tensorflow as tf

    weights.refuse_damaged(model)
    head = keras.Model(model.inputs, model.get_layer(layer).output)
    forward = tf.function(lambda batch: head(tf.cast(batch, tf.float32), training=False))
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        padded = np.pad(batch, [(0, BATCH - len(batch)), (0, 0), (0, 0), (0, 0)])
        yield Batch(start, forward(tf.constant(padded)).numpy()[: len(batch)])


def kernels(model: Any, layer: str) -> NDArray[np.float32]:
    """Return the kernels of a convolution as (filters, h, w, channels)."""
    values: NDArray[np.float32] = np.asarray(model.get_layer(layer).kernel)
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))
