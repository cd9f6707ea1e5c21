"""The forward pass of training: the layers of a Keras model as plain TensorFlow operations.

Keras computes the same when it calls the model, but always in float32.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from cnn.model_io.keras_types import Layer, Model

Drop = Callable[[Any], Any]


def keep_all(values: Any) -> Any:
    """Return the values unchanged: dropout acts only in training."""
    return values


@dataclass(frozen=True)
class _Pass:
    """What the layers of one pass share: weights in its dtype, dropout, whether XLA compiles it."""

    weights: Mapping[str, Any]
    dtype: Any
    drop: Drop
    xla: bool


def layers_of(model: Model) -> list[Layer]:
    """Return the layers of a keras.Sequential up to `logits`."""
    names = [layer.name for layer in model.layers]
    return list(model.layers[: names.index("logits") + 1])


def logits(
    layers: Sequence[Layer],
    weights: Mapping[str, Any],
    pixels: Any,
    precision: str,
    drop: Drop = keep_all,
    xla: bool = False,
) -> Any:
    """Return the logits of images, float32 (n, classes), computed in the given precision.

    layers: as `layers_of` returns them. weights: float32, with keys such as "conv1/kernel".
    pixels: (n, h, w, c), 0..255. drop: what a dropout layer does to its inputs. xla: whether
    XLA compiles the pass. Raises TypeError for the precision "auto", which the caller must
    resolve first.
    """
    import tensorflow as tf

    dtype = tf.as_dtype(precision)
    cast = {name: tf.cast(weight, dtype) for name, weight in weights.items()}
    context, values = _Pass(cast, dtype, drop, xla), tf.cast(pixels, tf.float32)
    for layer in layers:
        values = _APPLY[type(layer).__name__](layer, values, context)
    return tf.cast(values, tf.float32)


def _rescaled(layer: Layer, values: Any, context: _Pass) -> Any:
    import tensorflow as tf

    return tf.cast(values * layer.get_config()["scale"], context.dtype)


def _convolved(layer: Layer, values: Any, context: _Pass) -> Any:
    import tensorflow as tf

    kernel, config = context.weights[f"{layer.name}/kernel"], layer.get_config()
    values = tf.nn.conv2d(values, kernel, config["strides"], config["padding"].upper())
    return _activated(layer, values, context)


def _max_pooled(layer: Layer, values: Any, context: _Pass) -> Any:
    import tensorflow as tf

    return pooled(values) if context.xla else tf.nn.max_pool2d(values, 2, 2, "VALID")


def _flattened(layer: Layer, values: Any, context: _Pass) -> Any:
    import tensorflow as tf

    return tf.reshape(values, (-1, layer.output.shape[1]))


def _dense(layer: Layer, values: Any, context: _Pass) -> Any:
    values = _product(values, context.weights[f"{layer.name}/kernel"])
    return _activated(layer, values, context)


def _dropped(layer: Layer, values: Any, context: _Pass) -> Any:
    return context.drop(values)


_APPLY: dict[str, Callable[[Layer, Any, _Pass], Any]] = {
    "Rescaling": _rescaled,
    "Conv2D": _convolved,
    "MaxPooling2D": _max_pooled,
    "Flatten": _flattened,
    "Dense": _dense,
    "Dropout": _dropped,
}


def _activated(layer: Layer, values: Any, context: _Pass) -> Any:
    """Return values after the layer's bias and ReLU, as far as it has them."""
    import tensorflow as tf

    bias = context.weights.get(f"{layer.name}/bias")
    values = values if bias is None else tf.nn.bias_add(values, bias)
    return tf.nn.relu(values) if layer.get_config()["activation"] == "relu" else values


def pooled(values: Any) -> Any:
    """Return a 2 x 2 max pool; XLA on GPUs has no deterministic gradient of max_pool2d."""
    import tensorflow as tf

    height, width = (side - side % 2 for side in values.shape[1:3])
    whole = values[:, :height, :width]
    return reduce(tf.maximum, [whole[:, y::2, x::2] for y in (0, 1) for x in (0, 1)])


def _product(values: Any, kernel: Any) -> Any:
    """Return values @ kernel, (n, o), with a faster gradient than matmul's own.

    For 50 images and 1024 units, einsum (oneDNN) multiplies by the transposed kernel in a third
    of the time that matmul takes; forward, matmul is faster.
    """
    import tensorflow as tf

    def product(values: Any, kernel: Any) -> Any:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            of_values = tf.einsum("no,io->ni", upstream, kernel)
            return of_values, tf.matmul(values, upstream, transpose_a=True)

        return tf.matmul(values, kernel), gradient

    return tf.custom_gradient(product)(values, kernel)
