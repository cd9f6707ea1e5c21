"""What cannot be mined is refused before work starts, and the message says what and why."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cnn.config.run import MiningConfig
from cnn.data.dataset import Dataset, Split
from cnn.errors import ArtifactError, ConfigError
from cnn.explain import activations, patches
from cnn.model_io import batches
from cnn.train import networks, recipes
from tests.cnn.explain import oracle

pytestmark = pytest.mark.usefixtures("prepared")


@pytest.fixture(scope="module")
def network(prepared: object) -> Any:
    """The network of the recipe `spec`, untrained."""
    return networks.build(recipes.SPEC, (28, 28, 1), 10, seed=0)


@pytest.fixture
def nothing_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test fail that computes any activation."""

    def computed(*args: object, **settings: object) -> None:
        raise AssertionError("something was computed")

    monkeypatch.setattr(batches, "run", computed)
    monkeypatch.setattr(activations, "without_activation", computed)


def _mine(network: Any, digits: Dataset, images: Any, **settings: Any) -> patches.Patches:
    n = len(images)
    split = Split(images, np.zeros(n, np.int64), np.arange(n))
    dataset = replace(digits, splits={**digits.splits, "test": split})
    wanted = MiningConfig(**{"layer": "conv1", **settings})
    return patches.mine(network, dataset, wanted, digits.class_names)


def _images(*shape: int) -> Any:
    return np.zeros(shape, np.uint8)


LISTED = r"; the model's convolutions and pools are conv1, conv2, pool$"


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.parametrize(
    ("shape", "settings", "words"),
    [
        ((2, 28, 28, 1), {"layer": "conv3"}, f"^layer conv3: is not there{LISTED}"),
        ((2, 28, 28, 1), {"layer": "dense1"}, f"^layer dense1: has no filters{LISTED}"),
        (
            (2, 32, 32, 1),
            {},
            r"^images of 32 x 32 x 1 pixels are refused; the model reads 28 x 28 x 1$",
        ),
        ((2, 28, 28, 3), {}, r"^images of 28 x 28 x 3 pixels .* reads 28 x 28 x 1$"),
        ((0, 28, 28, 1), {}, r"^split: test is refused, it has no images here$"),
        (
            (2, 28, 28, 1),
            {"patches_per_filter": 163},
            r"^patches_per_filter: 163 is refused; a filter of conv1 has 162 positions "
            r"in the 2 test images$",
        ),
        (
            (2, 28, 28, 1),
            {"layer": "pool", "patches_per_filter": 33, "lowest": True},
            r"33 is refused; a filter of pool has 32 positions",
        ),
        (
            (2, 28, 28, 1),
            {"patches_per_filter": 3, "one_per_image": True},
            r"3 is refused; a filter of conv1 has 2 positions",
        ),
        ((2, 28, 28, 1), {"filters": (3, 25)}, r"25 is refused; conv1 has the filters 0 to 24$"),
    ],
)
def test_what_cannot_be_mined_is_refused_by_name(
    network: Any, digits: Dataset, shape: tuple[int, ...], settings: dict[str, Any], words: str
) -> None:
    """Layer, image size, channels, empty split, k, filters."""
    with pytest.raises(ConfigError, match=words):
        _mine(network, digits, _images(*shape), **settings)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"patches_per_filter": 0}, "patches_per_filter"),
        ({"patches_per_filter": 10_001}, "patches_per_filter"),
        ({"suppression_radius": -1}, "suppression_radius"),
        ({"filters": []}, "filters"),
        ({"filters": [-1]}, "filters"),
        ({"split": "tests"}, "split"),
        ({"lowest": 1}, "lowest"),
    ],
)
def test_settings_out_of_range_are_refused_when_they_are_made(
    settings: dict[str, Any], field: str
) -> None:
    """Pydantic names the field."""
    with pytest.raises(ValidationError) as refused:
        MiningConfig(layer="conv1", **settings)
    assert {fault["loc"][0] for fault in refused.value.errors()} == {field}


@pytest.mark.parametrize("limit", [(162, {}), (2, {"one_per_image": True})])
def test_as_many_patches_as_positions_are_allowed(
    network: Any, digits: Dataset, limit: tuple[int, dict[str, Any]]
) -> None:
    """The bound itself is legal, and the highest filter's number too."""
    k, settings = limit
    found = _mine(
        network, digits, _images(2, 28, 28, 1), patches_per_filter=k, filters=(24,), **settings
    )
    assert len(found.rows) == k, "the biases of 0.1 fire everywhere"


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.parametrize("damaged", ["conv1", "conv2", "dense1"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_no_numbers_are_refused_by_layer(
    digits: Dataset, damaged: str, value: float
) -> None:
    """In a layer before the mined one, in itself, and in one behind it: the labels need it."""
    network = networks.build(recipes.SPEC, (28, 28, 1), 10, seed=0)
    kernel, bias = network.get_layer(damaged).get_weights()
    bias[1] = value
    network.get_layer(damaged).set_weights([kernel, bias])
    words = f"^weights of {damaged} are not finite; the model is damaged$"
    for settings in ({}, {"lowest": True}):
        with pytest.raises(ArtifactError, match=words):
            _mine(network, digits, _images(2, 28, 28, 1), layer="conv2", **settings)


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.parametrize("large", ["conv1", "conv2", "dense1"])
@pytest.mark.parametrize("settings", [{}, {"lowest": True}])
def test_activations_beyond_float32_are_refused(
    digits: Dataset, large: str, settings: dict[str, Any]
) -> None:
    """Finite weights can overflow: what is infinite minus infinite a ReLU would turn into 0."""
    network = networks.build(recipes.SPEC, (28, 28, 1), 10, seed=0)
    kernel, bias = network.get_layer(large).get_weights()
    kernel[..., 1] = 3e38
    network.get_layer(large).set_weights([kernel, bias])
    words = f"^weights of {large} are so large that activations are not finite; the model is dam"
    with pytest.raises(ArtifactError, match=words):
        _mine(network, digits, _images(2, 28, 28, 1), layer="conv2", **settings)


def test_large_weights_that_cannot_overflow_are_mined(digits: Dataset) -> None:
    """Activations of 1e15 are numbers like others."""
    network = networks.build(recipes.SPEC, (28, 28, 1), 10, seed=0)
    kernel, bias = network.get_layer("conv1").get_weights()
    network.get_layer("conv1").set_weights([kernel * np.float32(1e15), bias])
    rows = _mine(network, digits, np.full((2, 28, 28, 1), 255, np.uint8), layer="conv1").rows
    assert max(row["activation"] for row in rows) > 1e14


def _sequential(*stacked: Any) -> Any:
    """Return a network of these layers on 12 x 11 pixels that ends in classes."""
    import keras

    layers = keras.layers
    ends = [layers.Flatten(), layers.Dense(10, name="classes")]
    return keras.Sequential([keras.Input((12, 11, 1)), *stacked, *ends])


def test_chains_of_other_layers_are_mined_right(digits: Dataset, rng: np.random.Generator) -> None:
    """1 x 1 kernels, dilation, stride, depthwise and overlapping pools; a ReLU of its own.

    The activations are the layers' own, the boxes hold all that counts, and the last layer,
    whatever its name, says the class.
    """
    import keras

    keras.utils.set_random_seed(0)  # before there are layers, which keep theirs
    layers = keras.layers
    network = _sequential(
        layers.Conv2D(4, 1, activation="relu", name="point"),
        layers.Dropout(0.5),
        layers.Conv2D(5, 3, dilation_rate=2, padding="same", name="dilated"),
        layers.ReLU(),
        layers.DepthwiseConv2D((3, 2), strides=2, padding="same", name="depth"),
        layers.MaxPooling2D(3, 1, padding="same", name="overlapping"),
        layers.Conv2D(3, 2, activation="relu", name="last"),
    )
    images = rng.uniform(0, 255, (9, 12, 11, 1)).astype(np.float32)
    predicted = np.asarray(network(images)).argmax(axis=1)
    for layer in ("point", "dilated", "depth", "overlapping", "last"):
        found = _mine(network, digits, images, layer=layer, patches_per_filter=4)
        head = keras.Model(network.inputs[0], network.get_layer(layer).output)
        values = np.asarray(head(images))
        for f in range(values.shape[-1]):
            rows = [row | {"image": row["image_id"]} for row in found.rows if row["filter"] == f]
            oracle.n_agreeing_ranks(rows, np.float64(values), f, 4)
        assert all(row["prediction"] == predicted[row["image_id"]] for row in found.rows)
        oracle.check_that_boxes_hold_all_that_counts(network, images, found.rows)


def _stacked(kind: str, **settings: Any) -> list[Any]:
    """Return a layer with the name `odd`, and a convolution behind it."""
    import keras

    odd = getattr(keras.layers, kind)(name="odd", **settings)
    return [odd, keras.layers.Conv2D(2, 3, name="behind")]


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("ZeroPadding2D", {}, r"not known behind odd \(ZeroPadding2D\)$"),
        ("Conv2DTranspose", {"filters": 1, "kernel_size": 3}, r"odd \(Conv2DTranspose\)$"),
        ("SeparableConv2D", {"filters": 1, "kernel_size": 3}, r"odd \(SeparableConv2D\)$"),
        ("Dense", {"units": 2}, r"not known behind odd \(Dense\)$"),
        (
            "MaxPooling2D",
            {"pool_size": 1, "data_format": "channels_first"},
            r"not known behind odd \(MaxPooling2D, channels_first\)$",
        ),
        ("BatchNormalization", {}, r"projections are not defined through odd"),
        ("Activation", {"activation": "tanh"}, r"not defined through odd \(Activation, tanh\)$"),
    ],
)
def test_layers_that_are_not_understood_are_refused_by_name(
    digits: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    settings: dict[str, Any],
    words: str,
) -> None:
    """On the way to the layer, before anything is computed."""
    network = _sequential(*_stacked(kind, **settings))
    monkeypatch.setattr(batches, "run", None)
    with pytest.raises(ConfigError, match=words):
        _mine(network, digits, _images(2, 12, 11, 1), layer="behind")


@pytest.mark.parametrize("kind", ["BatchNormalization", "Activation"])
def test_the_lowest_need_no_way_back(digits: Dataset, rng: np.random.Generator, kind: str) -> None:
    """They are not projected, so that layers without one are no hindrance."""
    settings = {"activation": "tanh"} if kind == "Activation" else {}
    network = _sequential(*_stacked(kind, **settings))
    images = rng.uniform(0, 255, (3, 12, 11, 1)).astype(np.float32)
    found = _mine(network, digits, images, layer="behind", lowest=True)
    assert len(found.rows) == 2 * 12


def test_a_model_that_is_no_chain_is_refused(digits: Dataset) -> None:
    """With the kind of model that it is."""
    import keras

    pixels = keras.Input((28, 28, 1))
    first = keras.layers.Conv2D(1, 3, name="conv1")(pixels)
    other = keras.Model(pixels, keras.layers.Dense(10)(keras.layers.Flatten()(first)))
    words = "no chain of layers, a keras.Sequential, but a Functional"
    with pytest.raises(ConfigError, match=words):
        _mine(other, digits, _images(2, 28, 28, 1))
