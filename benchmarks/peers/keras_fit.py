"""Keras as its documentation teaches it: compile and fit."""

import keras
import numpy as np

from benchmarks import peers


def steps(batch: str, steps_per_execution: str = "1") -> peers.Steps:
    """Return a function that fits on as many shuffled images as n steps use."""
    network, batch_size = build(), int(batch)
    network.compile(
        optimizer=keras.optimizers.Adam(1e-4),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=int(steps_per_execution),
    )
    pixels, known = peers.images().astype(np.float32) / 255, peers.labels()

    def take(n: int) -> None:
        for done in range(0, n, len(pixels) // batch_size):
            part = slice(min(n - done, len(pixels) // batch_size) * batch_size)
            network.fit(pixels[part], known[part], batch_size=batch_size, verbose=0)

    take(int(steps_per_execution) + peers.N_WARM)
    return take


def prediction() -> peers.Steps:
    """Return a function that predicts the 10,000 test images, as the documentation teaches it."""
    network, pixels = build(), peers.images("t10k").astype(np.float32) / 255

    def predict(n: int) -> None:
        for _ in range(n):
            network.predict(pixels, verbose=0)

    predict(1)
    return predict


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
