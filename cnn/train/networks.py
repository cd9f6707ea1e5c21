"""The network: the notebook's architecture, built from stock Keras layers."""

from typing import Any

import numpy as np

from cnn.config.training import Training
from cnn.errors import ConfigError


def build(settings: Training, image_shape: tuple[int, int, int], n_classes: int, seed: int) -> Any:
    """Return the untrained keras.Model: pixels 0..255 (n, h, w, c) to probabilities.

    Raises ConfigError where the images are too small for conv1 and the pool behind it.
    """
    import keras

    _check_fit(settings, image_shape)
    layers = keras.layers
    common = [
        {
            "kernel_initializer": keras.initializers.TruncatedNormal(
                stddev=settings.weight_sd, seed=_layer_seed(seed, index)
            ),
            "bias_initializer": keras.initializers.Constant(settings.initial_bias),
        }
        for index in range(4)
    ]
    logits_activation = None if settings.logits_activation == "none" else "relu"
    return keras.Sequential(
        [
            keras.Input(image_shape, name="pixels"),
            layers.Rescaling(1 / 255, name="scale"),
            layers.Conv2D(
                settings.conv1_filters,
                settings.conv1_kernel,
                strides=settings.conv1_stride,
                padding="valid",
                activation="relu",
                use_bias=settings.conv_bias,
                name="conv1",
                **common[0],
            ),
            layers.Conv2D(
                settings.conv2_filters,
                settings.conv2_kernel,
                padding="same",
                activation="relu",
                use_bias=settings.conv_bias,
                name="conv2",
                **common[1],
            ),
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(settings.dense1_units, activation="relu", name="dense1", **common[2]),
            layers.Dropout(settings.dropout, name="dropout"),
            layers.Dense(n_classes, activation=logits_activation, name="logits", **common[3]),
            layers.Softmax(name="probabilities"),
        ],
        name="filterscope",
    )


def map_size(settings: Training, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return height and width of the maps of conv1, and of conv2; raises ConfigError as `build`."""
    _check_fit(settings, image_shape)
    height, width = (
        (side - settings.conv1_kernel) // settings.conv1_stride + 1 for side in image_shape[:2]
    )
    return height, width


def _layer_seed(seed: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0] >> 1)


def _check_fit(settings: Training, image_shape: tuple[int, int, int]) -> None:
    """Refuse a conv1 that leaves the pool fewer than its 2 x 2 units."""
    smallest = settings.conv1_kernel + settings.conv1_stride
    if smallest > min(image_shape[:2]):
        raise ConfigError(
            f"train.conv1_kernel {settings.conv1_kernel} with train.conv1_stride "
            f"{settings.conv1_stride} is refused: images of at least {smallest} x {smallest} "
            f"pixels are needed, these are {image_shape[0]} x {image_shape[1]}"
        )
