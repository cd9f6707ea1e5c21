"""The forward pass of training computes the same as the saved Keras model."""

from typing import Any

import numpy as np
import pytest

from cnn.config.training import Training
from cnn.explain import activations
from cnn.train import forward, loop, networks

pytestmark = pytest.mark.usefixtures("prepared")


def _both(settings: Training, shape: tuple[int, int, int]) -> tuple[Any, Any]:
    """Return the logits of random images by the Keras model and by the plain operations."""
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
    """They come near those of float32 without being equal, and come back as float32."""
    expected, found = _both(small.model_copy(update={"precision": "bfloat16"}), (28, 28, 1))
    assert found.dtype == np.float32
    assert (found != expected).any()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


def test_an_unresolved_precision_is_refused(small: Training) -> None:
    """Training with `auto` by mistake must not silently use float32."""
    with pytest.raises(TypeError, match="'auto'"):
        _both(small.model_copy(update={"precision": "auto"}), (28, 28, 1))


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (2, 5, 7, 3)])
def test_the_pool_for_xla_is_the_stock_one(shape: tuple[int, ...]) -> None:
    """Values and gradients are equal, with ties too; the last line of an odd side is dropped."""
    import tensorflow as tf

    values = tf.constant(np.random.default_rng(0).integers(0, 3, shape), tf.float32)
    outputs, gradients = [], []
    for pool in (lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"), forward.pooled):
        with tf.GradientTape() as tape:
            tape.watch(values)
            pooled = pool(values)
            loss = tf.reduce_sum((1 + pooled) ** 2)
        outputs.append(pooled.numpy())
        gradients.append(tape.gradient(loss, values).numpy())
    np.testing.assert_array_equal(*outputs)
    np.testing.assert_array_equal(*gradients)


def test_a_third_convolution_is_trained_and_explained_like_the_others(small: Training) -> None:
    """Nothing but the list of layers knows how many convolutions there are."""
    import keras

    built = networks.build(small, (28, 28, 1), 10, seed=0)
    third = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv3")
    network = keras.Sequential(
        [keras.Input((28, 28, 1)), *built.layers[:3], third, *built.layers[3:]]
    )
    assert activations.explained_layers(network) == ["conv1", "conv2", "conv3"]
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 28, 28, 1), np.uint8), rng.integers(0, 10, 40)
    before = third.get_weights()[0]
    loop.Loop(network, small, 0, images, labels).run(0, 2)
    assert (third.get_weights()[0] != before).mean() > 0.5
    logits = forward.logits(
        forward.layers_of(network), loop.by_name(network), images, small.precision
    )
    expected = network(images.astype(np.float32))
    np.testing.assert_allclose(keras.ops.softmax(logits), expected, rtol=1e-4, atol=1e-5)
