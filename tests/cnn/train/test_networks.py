"""The network: its layers, sizes and initial weights, and what it computes."""

from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cnn.config.run import RecipeName
from cnn.errors import ConfigError
from cnn.train import networks, recipes

pytestmark = pytest.mark.usefixtures("prepared")

RGB = (32, 40, 3)


@pytest.fixture(scope="module")
def spec(prepared: object) -> Any:
    """The untrained network of the recipe `spec` for MNIST."""
    return networks.build(recipes.SPEC, (28, 28, 1), 10, seed=0)


def test_the_layers_are_those_of_the_notebook(spec: Any) -> None:
    """Names and output shapes for 28 x 28 x 1 images; every layer is a stock Keras layer."""
    import keras

    shapes = {layer.name: layer.output.shape[1:] for layer in spec.layers}
    assert shapes == {
        "scale": (28, 28, 1),
        "conv1": (9, 9, 25),
        "conv2": (9, 9, 64),
        "pool": (4, 4, 64),
        "flatten": (1024,),
        "dense1": (1024,),
        "dropout": (1024,),
        "logits": (10,),
        "probabilities": (10,),
    }
    for layer in spec.layers:
        assert type(layer) is getattr(keras.layers, type(layer).__name__)
        assert type(layer).__name__ != "Lambda"


@pytest.mark.parametrize(
    ("recipe", "conv1", "conv2", "total"),
    [("notebook", 3_600, 40_000, 1_103_450), ("spec", 3_625, 40_064, 1_103_539)],
)
def test_only_spec_has_biases_on_the_convolutions(
    recipe: RecipeName, conv1: int, conv2: int, total: int
) -> None:
    """Parameters of each layer, counted by hand from the architecture."""
    network = networks.build(recipes.RECIPES[recipe], (28, 28, 1), 10, seed=0)
    counts = {layer.name: layer.count_params() for layer in network.layers if layer.weights}
    assert counts == {"conv1": conv1, "conv2": conv2, "dense1": 1_049_600, "logits": 10_250}
    assert network.count_params() == total


@pytest.mark.parametrize(("sd", "bias"), [(0.05, 0.1), (0.5, -1.0)])
def test_initial_weights_are_a_normal_truncated_at_two_sd(sd: float, bias: float) -> None:
    """Kernels stay within 2 sd and fill that range; every bias is the initial one."""
    settings = recipes.SPEC.model_copy(update={"weight_sd": sd, "initial_bias": bias})
    network: Any = networks.build(settings, (28, 28, 1), 10, seed=0)
    for layer in filter(lambda layer: layer.weights, network.layers):
        kernel = np.asarray(layer.kernel)
        assert 1.9 * sd < np.abs(kernel).max() <= np.float32(2 * sd)
        # The sd of a standard normal truncated at 2 is 0.8796.
        assert kernel.std() == pytest.approx(0.8796 * sd, rel=0.03)
        assert abs(kernel.mean()) < 0.06 * sd
        np.testing.assert_array_equal(np.asarray(layer.bias), np.float32(bias))


def test_the_seed_decides_the_initial_weights_and_no_two_layers_share_them(spec: Any) -> None:
    """The same seed repeats them, another one changes them, and layers differ."""
    again = networks.build(recipes.SPEC, (28, 28, 1), 10, seed=0).get_weights()
    other = networks.build(recipes.SPEC, (28, 28, 1), 10, seed=1).get_weights()
    for mine, same, changed in zip(spec.get_weights(), again, other, strict=True):
        np.testing.assert_array_equal(mine, same)
        assert mine.ndim == 1 or (mine != changed).mean() > 0.99
    first = [w.ravel()[:1000] for w in spec.get_weights() if w.ndim > 1]
    for i in range(len(first)):
        for j in range(i):
            assert abs(np.corrcoef(first[i], first[j])[0, 1]) < 0.15


@pytest.mark.parametrize(
    ("shape", "n_classes", "expected"),
    [
        (RGB, 3, {"conv1": (11, 15, 25), "pool": (5, 7, 64), "logits": (3,)}),
        ((14, 14, 1), 2, {"conv1": (2, 2, 25), "pool": (1, 1, 64), "logits": (2,)}),
        ((64, 20, 1), 40, {"conv1": (27, 5, 25), "pool": (13, 2, 64), "logits": (40,)}),
    ],
)
def test_images_may_have_any_size_and_colour(
    shape: tuple[int, int, int], n_classes: int, expected: dict[str, tuple[int, ...]]
) -> None:
    """Sizes, channels and classes come from the data set."""
    network = networks.build(recipes.SPEC, shape, n_classes, seed=0)
    shapes = {name: network.get_layer(name).output.shape[1:] for name in expected}
    assert shapes == expected
    probabilities = np.asarray(network(np.full((2, *shape), 128, np.float32)))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("shape", [(13, 28, 1), (28, 13, 1), (8, 8, 3)])
def test_a_kernel_too_large_for_the_images_is_refused_by_name(
    shape: tuple[int, int, int],
) -> None:
    """The pool needs 2 x 2 units from conv1: a kernel of 12 with a stride of 2 needs 14 pixels."""
    message = (
        r"train\.conv1_kernel 12 with train\.conv1_stride 2 is refused: lower one of them, or use "
        rf"images of at least 14 x 14 pixels; these have {shape[0]} x {shape[1]}$"
    )
    with pytest.raises(ConfigError, match=message):
        networks.build(recipes.SPEC, shape, 10, seed=0)


def _conv(values: NDArray[Any], kernel: NDArray[Any], bias: NDArray[Any], stride: int) -> Any:
    """Return a convolution without padding, then ReLU."""
    windows = sliding_window_view(values, kernel.shape[:2], axis=(0, 1))[::stride, ::stride]
    return np.maximum(np.einsum("yxchw,hwcf->yxf", windows, kernel) + bias, 0)


def _forward(image: NDArray[Any], weights: dict[str, Any], relu_on_logits: bool) -> Any:
    """Return the logits of one image, in float64, from the description of the network."""
    values = _conv(image / 255, *weights["conv1"], stride=2)
    values = _conv(np.pad(values, [(2, 2), (2, 2), (0, 0)]), *weights["conv2"], stride=1)
    height, width = values.shape[0] // 2, values.shape[1] // 2
    values = values[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1).max(axis=(1, 3))
    kernel, bias = weights["dense1"]
    values = np.maximum(values.ravel() @ kernel + bias, 0)
    kernel, bias = weights["logits"]
    logits = values @ kernel + bias
    return np.maximum(logits, 0) if relu_on_logits else logits


@pytest.mark.parametrize("recipe", ["notebook", "spec"])
def test_the_network_computes_what_its_description_says(
    recipe: RecipeName, rng: np.random.Generator
) -> None:
    """Logits and probabilities equal a NumPy forward pass, without dropout."""
    import keras

    settings = recipes.RECIPES[recipe].model_copy(update={"initial_bias": -0.3, "weight_sd": 0.1})
    network = networks.build(settings, (28, 28, 1), 10, seed=0)
    images = rng.integers(0, 256, (5, 28, 28, 1)).astype(np.float32)
    logits = keras.Model(network.inputs[0], network.get_layer("logits").output)
    actual = np.asarray(logits(images, training=False))
    weights = {
        layer.name: [np.float64(part) for part in [*layer.get_weights(), 0.0]][:2]
        for layer in network.layers
        if layer.weights
    }
    expected = np.stack([_forward(image, weights, recipe == "notebook") for image in images])
    assert (actual < 0).any() == (recipe == "spec")
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())
    powers = np.exp(expected - expected.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(network(images)), probabilities, atol=1e-3)
