"""Keras as its documentation teaches it: compile and fit."""

import keras
import numpy as np

from benchmarks.peers import Steps, images, labels


def start(batch_size: int, steps_per_execution: str = "1") -> Steps:
    """Return what fits on as many shuffled images as the steps take."""
    network = build()
    network.compile(
        optimizer=keras.optimizers.Adam(1e-4),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=int(steps_per_execution),
    )
    pixels, known = images().astype(np.float32) / 255, labels()

    def steps(n: int) -> None:
        network.fit(
            pixels[: n * batch_size], known[: n * batch_size], batch_size=batch_size, verbose=0
        )

    return steps


def build() -> keras.Model:
    """Return the network in stock layers."""
    layers, normal = keras.layers, keras.initializers.TruncatedNormal(stddev=0.05)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(25, 12, strides=2, activation="relu", kernel_initializer=normal),
            layers.Conv2D(64, 5, padding="same", activation="relu", kernel_initializer=normal),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(1024, activation="relu", kernel_initializer=normal),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax", kernel_initializer=normal),
        ]
    )
