"""Projections of activations back to the pixels, by a deconvolutional network (deconvnet).

Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks", section 2.1:
one activation is kept and passed down through the layers. A max-pool passes it to the position
that won, a ReLU passes only positive values, a convolution applies its kernels, transposed.
Biases and the scaling of the pixels play no part. The result shows structure that the kernels
respond to; it does not explain the unit. If no pool lies below a layer, a filter's projections
all show the same pattern: they differ only in scale and in where the image's border cuts them.

Each layer's transpose is TensorFlow's own gradient of the layer without its activation function.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.errors import ConfigError
from cnn.explain import activations, receptive_field
from cnn.explain.views.base import Unit, View
from cnn.model_io.keras_types import Layer, Model

_LARGEST_CHUNK = 64  # units projected together
_UNCHANGED = ("Rescaling", "Dropout")
_TRANSPOSED = ("Conv2D", "DepthwiseConv2D", "MaxPooling2D", "AveragePooling2D")
_RECTIFYING = ("Activation", "ReLU")


def project(
    model: Model, layer: str, images: NDArray[Any], units: Sequence[Unit]
) -> NDArray[np.float32]:
    """Return the projection of each unit's activation onto its image's pixels, (n, h, w, c).

    images: (m, h, w, c), pixels 0..255; a unit's `image` is an index into them. Raises
    ConfigError as `way_back` does.
    """
    import keras

    layers = way_back(model, layer)
    pools = [item for item in layers if type(item).__name__ == "MaxPooling2D"]
    pooled = keras.Model(model.inputs[0], [model.inputs[0], *(pool.input for pool in pools)])
    n_at_once = min(_LARGEST_CHUNK, activations.batch_size(model, layer))
    projected = np.zeros((len(units), *images.shape[1:]), np.float32)
    for start in range(0, len(units), n_at_once):
        chunk = units[start : start + n_at_once]
        pixels = images[[unit.image for unit in chunk]].astype(np.float32)
        _, *values = keras.tree.flatten(pooled(pixels, training=False))
        won = dict(zip((pool.name for pool in pools), values, strict=True))
        projected[start : start + n_at_once] = _down(layers, won, chunk)
    return projected


def way_back(model: Model, name: str) -> list[Layer]:
    """Return a model's layers from the pixels up to the named convolution or pool.

    Raises ConfigError as receptive_field.chain does, and if no projection is defined for a layer
    on the way: one that is not a convolution, pool, ReLU, scaling or dropout.
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


def _down(layers: Sequence[Layer], pooled: Mapping[str, Any], units: Sequence[Unit]) -> Any:
    """Return the signal that reaches the pixels; pooled: each max-pool's input, by name."""
    import tensorflow as tf

    seed = np.zeros((len(units), *layers[-1].output.shape[1:]), np.float32)
    for i, unit in enumerate(units):
        seed[i, unit.y, unit.x, unit.filter] = unit.activation
    signal = tf.constant(seed)
    for layer in reversed(layers):
        if type(layer).__name__ == "ReLU" or layer.get_config().get("activation") == "relu":
            signal = tf.nn.relu(signal)
        if type(layer).__name__ in _TRANSPOSED:
            # Other layers are linear: their gradient is the same for every input.
            shape = (len(units), *layer.input.shape[1:])
            value = pooled[layer.name] if layer.name in pooled else tf.zeros(shape)
            signal = _through(activations.without_activation(layer), value, signal)
    return signal.numpy()


def _through(layer: Layer, value: Any, signal: Any) -> Any:
    """Return the gradient of a layer with respect to its input, weighted by a signal."""
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(value)
        output = layer(value)
    return tape.gradient(output, value, output_gradients=signal)


VIEW = View(
    name="projections",
    compute=project,
    refuse=way_back,
    title="Patches and projections of {layer}",
    note="right: projection, not explanation: each activation projected back to the pixels\n"
    "on its own scale: red above zero, blue below (grey is zero in colour images)",
    summary="Beside each patch, its activation projected back to the pixels: a projection, not an "
    "explanation. If no pool lies below a layer, all projections of a filter show the same "
    "pattern, each on its own scale and cut off at the border of the image.",
    caption="its activation projected back to the pixels, on its own scale: red is above zero, "
    "blue below (grey is zero in colour images). This is a projection, not an explanation.",
    array="projections of {layer}'s patches, (filters, ranks, height, width, channels)",
    figure="patches of {layer} and their projections",
)
