"""The network: the notebook's architecture in stock Keras layers.

It is defined only here; training computes the same layers as plain operations
(`cnn.train.forward`).
"""

import hashlib
from typing import Any

import numpy as np

from cnn.config.training import Training
from cnn.errors import ConfigError
from cnn.model_io.keras_types import Model

# Combined with the training's seed for each layer's initial weights; others use their name.
_SEEDS = {"conv1": 0, "conv2": 1, "dense1": 2, "logits": 3}


def build(
    settings: Training, image_shape: tuple[int, int, int], n_classes: int, seed: int
) -> Model:
    """Return the untrained keras.Model: pixels 0..255 (n, h, w, c) to probabilities.

    Raises ConfigError if the images are too small for conv1 and the pool after it.
    """
    import keras

    _refuse_too_small(settings, image_shape)
    layers = keras.layers

    def convolution(name: str, n_filters: int, kernel: int, **options: Any) -> Any:
        return layers.Conv2D(
            n_filters,
            kernel,
            activation="relu",
            use_bias=settings.conv_bias,
            name=name,
            **initial(name),
            **options,
        )

    def dense(name: str, n_units: int, activation: str | None) -> Any:
        return layers.Dense(n_units, activation=activation, name=name, **initial(name))

    def initial(name: str) -> dict[str, Any]:
        return {
            "kernel_initializer": keras.initializers.TruncatedNormal(
                stddev=settings.weight_sd, seed=_seed(seed, name)
            ),
            "bias_initializer": keras.initializers.Constant(settings.initial_bias),
        }

    network: Model = keras.Sequential(
        [
            keras.Input(image_shape, name="pixels"),
            layers.Rescaling(1 / 255, name="scale"),
            convolution(
                "conv1",
                settings.conv1_filters,
                settings.conv1_kernel,
                strides=settings.conv1_stride,
                padding="valid",
            ),
            convolution("conv2", settings.conv2_filters, settings.conv2_kernel, padding="same"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(name="flatten"),
            dense("dense1", settings.dense1_units, "relu"),
            layers.Dropout(settings.dropout, name="dropout"),
            dense("logits", n_classes, "relu" if settings.logits_activation == "relu" else None),
            layers.Softmax(name="probabilities"),
        ],
        name="filterscope",
    )
    return network


def _seed(seed: int, layer: str) -> int:
    """Return the seed of a layer's initial weights."""
    own = int.from_bytes(hashlib.sha256(layer.encode()).digest()[:8])
    sequence = np.random.SeedSequence([seed, _SEEDS.get(layer, own)])
    return int(sequence.generate_state(1)[0] >> 1)


def _refuse_too_small(settings: Training, image_shape: tuple[int, int, int]) -> None:
    """Raise ConfigError if conv1 leaves fewer than the 2 x 2 units that the pool needs."""
    smallest = settings.conv1_kernel + settings.conv1_stride
    if smallest > min(image_shape[:2]):
        raise ConfigError(
            f"train.conv1_kernel {settings.conv1_kernel} with train.conv1_stride "
            f"{settings.conv1_stride} is refused: lower one of them, or use images of at least "
            f"{smallest} x {smallest} pixels; these have {image_shape[0]} x {image_shape[1]}"
        )
