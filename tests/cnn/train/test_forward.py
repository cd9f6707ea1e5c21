"""The training's forward pass and the saved model are one network."""

from typing import Any

import numpy as np
import pytest

from cnn.config.training import Training
from cnn.train import forward, loop, networks, recipes

pytestmark = pytest.mark.usefixtures("prepared")


def _both(settings: Training, shape: tuple[int, int, int]) -> tuple[Any, Any]:
    """Return the logits of random images from the Keras model and from the plain operations."""
    import keras

    rng = np.random.default_rng(0)
    network = networks.build(settings, shape, 7, seed=1)
    network.set_weights([rng.normal(0, 0.2, w.shape) for w in network.get_weights()])
    images = rng.integers(0, 256, (9, *shape), np.uint8)
    head = keras.Model(network.inputs[0], network.get_layer("logits").output)
    expected = head.predict(images.astype(np.float32), verbose=0)
    return expected, forward.logits(
        forward.layers_of(network), loop.by_name(network), images, settings.precision
    ).numpy()


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (28, 28, 1)),
        ({"conv_bias": False, "logits_activation": "relu"}, (28, 28, 1)),
        ({"conv1_kernel": 5, "conv1_stride": 3, "conv2_kernel": 4}, (31, 20, 3)),
        ({"conv1_stride": 1, "conv2_kernel": 1}, (13, 16, 1)),
    ],
)
def test_logits_are_those_of_the_keras_model(
    small: Training, changes: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    """With and without biases, for any size, kernel and stride."""
    expected, found = _both(small.model_copy(update=changes), shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_logits_are_rounded_and_float32(small: Training) -> None:
    """They come near, are not the same, and go on as float32."""
    expected, found = _both(small.model_copy(update={"precision": "bfloat16"}), (28, 28, 1))
    assert found.dtype == np.float32
    assert (found != expected).any()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


def test_a_precision_still_to_be_chosen_is_refused(small: Training) -> None:
    """Who forgets to resolve `auto` must not train in float32 under another name."""
    with pytest.raises(TypeError, match="'auto'"):
        _both(small.model_copy(update={"precision": "auto"}), (28, 28, 1))


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (2, 5, 7, 3)])
def test_the_pool_for_xla_is_the_stock_one(shape: tuple[int, ...]) -> None:
    """Its values and gradients are equal, those of ties too; an odd side's last line is left."""
    import tensorflow as tf

    values = tf.constant(np.random.default_rng(0).integers(0, 3, shape), tf.float32)
    found, gradients = [], []
    for pool in (lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"), forward.pooled):
        with tf.GradientTape() as tape:
            tape.watch(values)
            pooled = pool(values)
            loss = tf.reduce_sum((1 + pooled) ** 2)
        found.append(pooled.numpy())
        gradients.append(tape.gradient(loss, values).numpy())
    np.testing.assert_array_equal(*found)
    np.testing.assert_array_equal(*gradients)


def test_the_recipes_are_covered() -> None:
    """Every layer of the whole network has its weights under the names used here."""
    network = networks.build(recipes.SPEC, (28, 28, 1), 10, seed=0)
    names = ("conv1", "conv2", "dense1", "logits")
    wanted = {f"{layer}/{name}" for layer in names for name in ("kernel", "bias")}
    assert set(loop.by_name(network)) == wanted
