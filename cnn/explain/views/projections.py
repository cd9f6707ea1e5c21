"""Projections of activations back to the pixels, by a deconvolutional network.

Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks", section 2.1:
one activation is kept and goes down through the layers; at a max-pool to the place that won,
at a ReLU only what is positive, at a convolution through its kernels, transposed. Biases and
the scaling of the pixels have no part in it. What comes out is a projection of the activation
through the kernels: it shows structure that they respond to, it does not explain the unit.
Where no pool lies below a layer, nothing but the activation's size and the border differs from
one image to the next: a filter's projections are one pattern.

Each layer's transpose is TensorFlow's own gradient of the layer without its activation function.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.errors import ConfigError
from cnn.explain import activations, receptive_field
from cnn.explain.views.base import Unit, View
from cnn.model_io.keras_types import Layer, Model

_CHUNK = 64  # units that go down together
_UNCHANGED = ("Rescaling", "Dropout")
_TRANSPOSED = ("Conv2D", "DepthwiseConv2D", "MaxPooling2D", "AveragePooling2D")
_RECTIFYING = ("Activation", "ReLU")


def project(
    model: Model, layer: str, images: NDArray[Any], units: Sequence[Unit]
) -> NDArray[np.float32]:
    """Return the projection of each unit's activation into the space of its image, (n, h, w, c).

    images: (m, h, w, c), pixels 0..255, which the units' `image` counts in. Raises ConfigError
    as `way_back` does.
    """
    import keras

    layers = way_back(model, layer)
    inputs = keras.Model(model.inputs[0], [item.input for item in layers])
    found = np.zeros((len(units), *images.shape[1:]), np.float32)
    for start in range(0, len(units), _CHUNK):
        chunk = units[start : start + _CHUNK]
        pixels = images[[unit.image for unit in chunk]].astype(np.float32)
        values = inputs(pixels, training=False)
        values = values if isinstance(values, list) else [values]
        found[start : start + _CHUNK] = _down(layers, values, chunk)
    return found


def way_back(model: Model, name: str) -> list[Layer]:
    """Return a model's layers from the pixels up to the convolution or pool of that name.

    Raises ConfigError as receptive_field.chain does, and for a layer on the way that is no
    convolution, pool, ReLU, scaling or dropout: nothing comes back through it.
    """
    layers = receptive_field.chain(model, name)
    for layer in layers:
        kind = type(layer).__name__
        function = layer.get_config().get("activation", "linear")
        is_known = kind in (*_UNCHANGED, *_TRANSPOSED, *_RECTIFYING)
        if not is_known or function not in ("relu", "linear"):
            raise ConfigError(
                f"layer {name}: projections are not defined through {layer.name} "
                f"({kind}, {function})"
            )
    return layers


def _down(layers: Sequence[Layer], values: Sequence[Any], units: Sequence[Unit]) -> Any:
    """Return what arrives at the pixels; values: each layer's input."""
    import tensorflow as tf

    seed = np.zeros((len(units), *layers[-1].output.shape[1:]), np.float32)
    for i, unit in enumerate(units):
        seed[i, unit.y, unit.x, unit.filter] = unit.activation
    signal = tf.constant(seed)
    for layer, value in zip(reversed(layers), reversed(values), strict=True):
        if type(layer).__name__ == "ReLU" or layer.get_config().get("activation") == "relu":
            signal = tf.nn.relu(signal)
        if type(layer).__name__ in _TRANSPOSED:
            signal = _through(activations.without_activation(layer), value, signal)
    return signal.numpy()


def _through(layer: Layer, value: Any, signal: Any) -> Any:
    """Return the gradient of a layer at its input, along a signal."""
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(value)
        output = layer(value)
    return tape.gradient(output, value, output_gradients=signal)


VIEW = View(
    name="projections",
    compute=project,
    refuse=lambda model, layer: (way_back(model, layer), None)[1],
    title="Patches and projections of {layer}",
    note="right: projection, not explanation: each activation carried down to the pixels,\neach on "
    "its own scale, red above zero, blue below (grey is zero in colour)",
    summary="Beside the patches, each activation carried back down to the pixels: a projection, "
    "which is no explanation. Where no pool lies below a layer, the projections of one filter are "
    "one pattern, each on its own scale and cut where the image ends.",
    caption="projection of its activation down to the pixels, on its own scale: red is above zero, "
    "blue below, in colour grey is zero. A projection is no explanation.",
    array="projections of {layer}'s patches, (filters, ranks, height, width, channels)",
    figure="patches of {layer} and their projections",
)
