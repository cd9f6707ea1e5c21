"""The network, stated once: the training's graph and the Keras model are made from one list.

The training computes plain operations, in its precision; the saved model is made of stock Keras
layers, always in float32.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnn.config.training import Training
from cnn.errors import ConfigError
from cnn.train.layers import (
    Convolution,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool,
    Pass,
    Size,
)

_SCALE = 1 / 255  # pixels are 0..255
# Seeds of initial weights within a training's seed; that of any other layer comes from its name.
_SEEDS = {"conv1": 0, "conv2": 1, "dense1": 2, "logits": 3}


def layers(settings: Training, n_classes: int) -> list[Layer]:
    """Return the layers from the scaled pixels to the logits: the notebook's architecture."""
    use_bias = settings.conv_bias
    return [
        Convolution(
            "conv1",
            settings.conv1_filters,
            settings.conv1_kernel,
            settings.conv1_stride,
            use_bias=use_bias,
        ),
        Convolution(
            "conv2",
            settings.conv2_filters,
            settings.conv2_kernel,
            padding="same",
            use_bias=use_bias,
        ),
        MaxPool("pool"),
        Flatten("flatten"),
        Dense("dense1", settings.dense1_units),
        Dropout("dropout", settings.dropout),
        Dense("logits", n_classes, relu=settings.logits_activation == "relu"),
    ]


def keep_all(values: Any) -> Any:
    """Return the values: nothing is dropped outside of training."""
    return values


def logits(
    weights: Mapping[str, Any],
    pixels: Any,
    settings: Training,
    drop: Any = keep_all,
    xla: bool = False,
) -> Any:
    """Return the logits of images, float32 (n, classes), computed in the training's precision.

    weights: float32, by layer and name, "conv1/kernel". pixels: (n, h, w, c), 0..255.
    drop: what becomes of the units of a dropout, in training. xla: whether XLA compiles this.
    Raises TypeError for the precision "auto", which is to be resolved before.
    """
    import tensorflow as tf

    dtype = tf.as_dtype(settings.precision)
    cast = {name: tf.cast(weight, dtype) for name, weight in weights.items()}
    given = Pass(cast, drop, xla)
    values = tf.cast(tf.cast(pixels, tf.float32) * _SCALE, dtype)
    for layer in layers(settings, weights["logits/bias"].shape[0]):
        values = layer.apply(values, given)
    return tf.cast(values, tf.float32)


def build(settings: Training, image_shape: tuple[int, int, int], n_classes: int, seed: int) -> Any:
    """Return the untrained keras.Model: pixels 0..255 (n, h, w, c) to probabilities.

    Raises ConfigError where the images are too small for the convolutions and pools.
    """
    import keras

    stated = layers(settings, n_classes)
    _refuse_too_small(stated, settings, image_shape)

    def initial(name: str) -> dict[str, Any]:
        return {
            "kernel_initializer": keras.initializers.TruncatedNormal(
                stddev=settings.weight_sd, seed=_seed(seed, name)
            ),
            "bias_initializer": keras.initializers.Constant(settings.initial_bias),
        }

    return keras.Sequential(
        [
            keras.Input(image_shape, name="pixels"),
            keras.layers.Rescaling(_SCALE, name="scale"),
            *(layer.to_keras(initial) for layer in stated),
            keras.layers.Softmax(name="probabilities"),
        ],
        name="filterscope",
    )


def map_sizes(settings: Training, image_shape: tuple[int, int, int]) -> dict[str, Size]:
    """Return height and width of the maps of every convolution; raises ConfigError as `build`."""
    stated = layers(settings, n_classes=1)
    _refuse_too_small(stated, settings, image_shape)
    sizes = _sizes(stated, image_shape[:2])
    return {layer.name: sizes[layer.name] for layer in stated if isinstance(layer, Convolution)}


def _seed(seed: int, layer: str) -> int:
    """Return the seed of a layer's initial weights."""
    own = int.from_bytes(hashlib.sha256(layer.encode()).digest()[:8])
    sequence = np.random.SeedSequence([seed, _SEEDS.get(layer, own)])
    return int(sequence.generate_state(1)[0] >> 1)


def _sizes(stated: Sequence[Layer], size: Size) -> dict[str, Size]:
    """Return the size of each layer's maps, by its name, for images of some size."""
    found: dict[str, Size] = {}
    for layer in stated:
        following = layer.map_size(size)
        if following is None:
            break
        found[layer.name] = size = following
    return found


def _refuse_too_small(
    stated: Sequence[Layer], settings: Training, image_shape: tuple[int, int, int]
) -> None:
    """Refuse images of which a convolution or a pool leaves nothing."""

    def fits(size: Size) -> bool:
        return all(min(found) > 0 for found in _sizes(stated, size).values())

    if not fits(image_shape[:2]):
        smallest = next(side for side in itertools.count(1) if fits((side, side)))
        raise ConfigError(
            f"train.conv1_kernel {settings.conv1_kernel} with train.conv1_stride "
            f"{settings.conv1_stride} is refused: images of at least {smallest} x {smallest} "
            f"pixels are needed, these are {image_shape[0]} x {image_shape[1]}"
        )
