"""Activations of one layer for many images, one batch at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.errors import ArtifactError
from cnn.model_io import batches, weight_checks
from cnn.model_io.keras_types import Layer, Model

_LARGEST_BATCH = 1000  # images
_LARGEST_OUTPUT = 256e6  # bytes of one layer's output


def batch_size(model: Model, layer: str) -> int:
    """Return how many images form a batch; the shards of a search start at multiples of it."""
    names = [item.name for item in model.layers]
    computed = model.layers[: names.index(layer) + 1]
    n_values = max(math.prod(item.output.shape[1:]) for item in computed)
    return int(max(1, min(_LARGEST_BATCH, _LARGEST_OUTPUT // (4 * n_values))))


@dataclass(frozen=True)
class Batch:
    """Activations (n, y, x, filters) of the images from `start` on; peaks (n, filters).

    A peak is the largest activation in an image's feature map.
    """

    start: int
    values: NDArray[np.float32]
    peaks: NDArray[np.float32]

    @property
    def stop(self) -> int:
        """Index one past the last image."""
        return self.start + len(self.values)


class Forward:
    """The forward pass up to a convolution or pool; later layers are not computed.

    It is compiled on the first batch. negated: leave out the layer's own activation function and
    flip the sign of its output. at_most: upper limit of the batch size, in images.
    """

    def __init__(
        self, model: Model, layer: str, *, negated: bool = False, at_most: int = _LARGEST_BATCH
    ) -> None:
        """Take a keras.Model and a layer's name; raise ArtifactError for damaged weights."""
        import keras
        import tensorflow as tf

        weight_checks.refuse_damaged(model)
        output = model.get_layer(layer).output
        if negated:
            output = -without_activation(model.get_layer(layer))(model.get_layer(layer).input)
        head = keras.Model(model.inputs, output)
        _, height, width, self.n_filters = head.output_shape
        self.layer, self.n_at_once = layer, min(at_most, batch_size(model, layer))

        def forward(batch: Any) -> tuple[Any, Any]:
            values = head(batch, training=False)
            peaks = tf.nn.max_pool2d(values, (height, width), 1, "VALID")
            return values, tf.reshape(peaks, (-1, self.n_filters))

        self._graph = batches.compiled(forward)

    def stream(self, images: NDArray[Any], start: int = 0) -> Iterator[Batch]:
        """Yield the activations of the images from `start` on, one batch at a time.

        images: (n, h, w, c), pixels 0..255. start: a multiple of `n_at_once`. Raises ArtifactError
        if an activation is not finite.
        """
        for first, (values, peaks) in batches.run(self._graph, images, self.n_at_once, start):
            if not np.isfinite(peaks).all():
                raise ArtifactError(
                    f"activations of {self.layer} are not finite; the model is damaged"
                )
            yield Batch(first, values, peaks)


def stream(model: Model, layer: str, images: NDArray[Any]) -> Iterator[Batch]:
    """Yield a layer's activations of all images, one batch at a time; see Forward."""
    return Forward(model, layer).stream(images)


def predict(model: Model, images: NDArray[Any]) -> NDArray[np.int64]:
    """Return the predicted class of each image, (n,)."""
    import keras

    last = model.layers[-1]
    head = keras.Model(model.inputs, last.output)
    graph = batches.compiled(lambda batch: [head(batch, training=False)])
    outputs = batches.run(graph, images, batch_size(model, last.name))
    classes = [logits.argmax(axis=1) for _, (logits,) in outputs]
    return np.concatenate([np.empty(0, np.int64), *classes])


def explained_layers(model: Model) -> list[str]:
    """Return the layers to explain: the names of a model's convolutions, from the pixels up."""
    return [layer.name for layer in model.layers if type(layer).__name__ == "Conv2D"]


def kernels(model: Model, layer: str) -> NDArray[np.float32]:
    """Return the kernels of a convolution as (filters, h, w, channels)."""
    values, *_ = model.get_layer(layer).get_weights()
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))


def without_activation(layer: Layer) -> Layer:
    """Return a copy of a layer, with its weights, but without its activation function."""
    config = layer.get_config()
    if "activation" not in config:
        return layer
    kind: Any = type(layer)
    copy: Any = kind.from_config(config | {"activation": "linear", "name": f"{layer.name}-linear"})
    copy.build(layer.input.shape)
    copy.set_weights(layer.get_weights())
    linear: Layer = copy
    return linear
