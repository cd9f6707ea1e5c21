"""Predictions of a trained model for many images."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.model_io import batches, weight_checks
from cnn.model_io.keras_types import Model

_BATCH = 1000


Predict = Callable[[NDArray[Any]], NDArray[np.float32]]


def logits_of(model: Model) -> Predict:
    """Return a function from images (n, h, w, c), pixels 0..255, to logits (n, classes).

    model: a keras.Model with a layer `logits`. The last batch is padded, so that all
    batches have the same size. Raises ArtifactError if a weight is not finite.
    """
    import keras

    weight_checks.refuse_damaged(model)
    head = keras.Model(model.inputs, model.get_layer("logits").output)
    graph = batches.compiled(lambda batch: [head(batch, training=False)])

    def logits(images: NDArray[Any]) -> NDArray[np.float32]:
        values = np.empty((len(images), head.output_shape[-1]), np.float32)
        for first, (part,) in batches.run(graph, images, _BATCH):
            values[first : first + len(part)] = part
        return values

    return logits


def probabilities(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the softmax of logits and its logarithm, both (n, classes)."""
    shifted = values.astype(np.float64) - values.max(axis=1, keepdims=True, initial=-np.inf)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.exp(logs), logs
