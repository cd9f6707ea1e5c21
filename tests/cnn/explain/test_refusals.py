"""What cannot be mined is refused before anything is computed, and the message says why."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cnn.config.run import MiningConfig
from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError, ConfigError
from cnn.explain import activations, patches
from cnn.model_io import batches
from tests.cnn.explain import oracle, planted

pytestmark = pytest.mark.usefixtures("prepared")


@pytest.fixture(scope="module")
def network(prepared: object) -> Any:
    """The network of the recipe `spec`, untrained."""
    return planted.build()


@pytest.fixture
def nothing_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if any activation is computed."""

    def computed(*args: object, **settings: object) -> None:
        raise AssertionError("something was computed")

    monkeypatch.setattr(batches, "run", computed)
    monkeypatch.setattr(activations, "without_activation", computed)


def _mine(
    network: Any,
    digits: Dataset,
    shape: tuple[int, ...] = (2, 28, 28, 1),
    layer: str = "conv1",
    **settings: Any,
) -> patches.Patches:
    """Mine black images of this shape."""
    images = np.zeros(shape, np.uint8)
    return planted.mine(network, layer, planted.with_images(digits, images), **settings)


LISTED = r"; the model's convolutions and pools are conv1, conv2, pool$"


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layer": "conv3"}, f"^layer conv3: not found{LISTED}"),
        ({"layer": "dense1"}, f"^layer dense1: not a convolution or pool{LISTED}"),
        ({"shape": (2, 32, 32, 1)}, "^images of 32 x 32 x 1 pixels .* model reads 28 x 28 x 1$"),
        ({"shape": (2, 28, 28, 3)}, "^images of 28 x 28 x 3 pixels .* model reads 28 x 28 x 1$"),
        ({"shape": (0, 28, 28, 1)}, "^split: test is refused; this data set has no test images$"),
        ({"patches_per_filter": 163}, r"conv1 has 162 positions in the 2 test images$"),
        (
            {"layer": "pool", "patches_per_filter": 33, "lowest": True},
            r"^patches_per_filter: 33 is refused; a filter of pool has 32 positions",
        ),
        ({"patches_per_filter": 3, "one_per_image": True}, r"a filter of conv1 has 2 positions"),
        ({"filters": (3, 25)}, r"^filters: 25 is refused; conv1 has filters 0 to 24$"),
    ],
)
def test_what_cannot_be_mined_is_refused_by_name(
    network: Any, digits: Dataset, settings: dict[str, Any], words: str
) -> None:
    """Layer, image size, channels, empty split, patches per filter, filters."""
    with pytest.raises(ConfigError, match=words):
        _mine(network, digits, **settings)


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
def test_settings_out_of_range_are_refused(settings: dict[str, Any], field: str) -> None:
    """Pydantic names the field."""
    with pytest.raises(ValidationError) as refused:
        MiningConfig(layer="conv1", **settings)
    assert {fault["loc"][0] for fault in refused.value.errors()} == {field}


@pytest.mark.parametrize(("k", "one_per_image"), [(162, False), (2, True)])
def test_as_many_patches_as_positions_are_allowed(
    network: Any, digits: Dataset, k: int, one_per_image: bool
) -> None:
    """The limit itself is legal, and so is the last filter."""
    options = {"patches_per_filter": k, "one_per_image": one_per_image, "filters": (24,)}
    found = _mine(network, digits, **options)
    assert len(found.rows) == k, "the biases of 0.1 fire everywhere"


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.parametrize("layer", ["conv1", "conv2", "dense1"])
@pytest.mark.parametrize("lowest", [False, True])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (np.nan, "not finite; the model is damaged$"),
        (-np.inf, "not finite; the model is damaged$"),
        (3e38, "so large that activations are not finite; the model is dam"),
    ],
)
def test_weights_without_finite_activations_are_refused_by_layer(
    digits: Dataset, layer: str, lowest: bool, value: float, problem: str
) -> None:
    """In a layer before the mined one, in itself, and in a later one, which the labels need.

    Finite weights can overflow: a ReLU would turn infinity minus infinity into 0.
    """
    network = planted.build()
    with planted.weights(network, layer) as (kernel, _):
        kernel[..., 1] = value
    with pytest.raises(ArtifactError, match=f"^weights of {layer} are {problem}"):
        _mine(network, digits, layer="conv2", lowest=lowest)


def test_large_weights_that_cannot_overflow_are_mined(digits: Dataset) -> None:
    """Activations of 1e15 are finite."""
    network = planted.build()
    with planted.weights(network, "conv1") as (kernel, _):
        kernel[...] *= 1e15
    white = planted.with_images(digits, np.full((2, 28, 28, 1), 255, np.uint8))
    rows = planted.mine(network, "conv1", white).rows
    assert max(row["activation"] for row in rows) > 1e14


def _sequential(*stacked: Any) -> Any:
    """Return a network of these layers on 12 x 11 pixels, with a dense layer of classes."""
    import keras

    layers = keras.layers
    ends = [layers.Flatten(), layers.Dense(10, name="classes")]
    return keras.Sequential([keras.Input((12, 11, 1)), *stacked, *ends])


def test_chains_of_other_layers_are_mined_right(digits: Dataset, rng: np.random.Generator) -> None:
    """1 x 1 kernels, dilation, stride, depthwise and overlapping pools; a separate ReLU.

    The activations are the layers' own, the boxes hold all that counts, and the last layer gives
    the class, whatever its name.
    """
    import keras

    keras.utils.set_random_seed(0)  # layers take their seeds when they are built
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
    dataset = planted.with_images(digits, images)
    predicted = np.asarray(network(images)).argmax(axis=1)
    for layer in ("point", "dilated", "depth", "overlapping", "last"):
        found = planted.mine(network, layer, dataset, patches_per_filter=4)
        head = keras.Model(network.inputs[0], network.get_layer(layer).output)
        oracle.n_agreeing_ranks(found.rows, np.float64(head(images)), 4)
        assert all(row["prediction"] == predicted[row["image_id"]] for row in found.rows)
        oracle.check_that_boxes_hold_all_that_counts(network, images, found.rows)


def _stacked(kind: str, **settings: Any) -> list[Any]:
    """Return a layer with the name `odd`, and a convolution that follows it."""
    import keras

    odd = getattr(keras.layers, kind)(name="odd", **settings)
    return [odd, keras.layers.Conv2D(2, 3, name="next")]


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("ZeroPadding2D", {}, r"receptive fields are not defined through odd \(ZeroPadding2D\)$"),
        ("Conv2DTranspose", {"filters": 1, "kernel_size": 3}, r"odd \(Conv2DTranspose\)$"),
        ("SeparableConv2D", {"filters": 1, "kernel_size": 3}, r"odd \(SeparableConv2D\)$"),
        ("Dense", {"units": 2}, r"not defined through odd \(Dense\)$"),
        (
            "MaxPooling2D",
            {"pool_size": 1, "data_format": "channels_first"},
            r"not defined through odd \(MaxPooling2D, channels_first\)$",
        ),
        ("BatchNormalization", {}, r"projections are not defined through odd"),
        ("Activation", {"activation": "tanh"}, r"not defined through odd \(Activation, tanh\)$"),
        (
            "Conv2D",
            {"filters": 1, "kernel_size": 3, "activation": "tanh"},
            r"projections are not defined through odd \(Conv2D, tanh\)$",
        ),
    ],
)
def test_unsupported_layers_are_refused_by_name(
    digits: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    settings: dict[str, Any],
    words: str,
) -> None:
    """On the way from the pixels to the layer, before anything is computed."""
    network = _sequential(*_stacked(kind, **settings))
    monkeypatch.setattr(batches, "run", None)
    with pytest.raises(ConfigError, match=words):
        _mine(network, digits, (2, 12, 11, 1), "next")


@pytest.mark.parametrize("kind", ["BatchNormalization", "Activation"])
def test_the_lowest_need_no_projection(
    digits: Dataset, rng: np.random.Generator, kind: str
) -> None:
    """They are mined through layers that projections are not defined for."""
    settings = {"activation": "tanh"} if kind == "Activation" else {}
    network = _sequential(*_stacked(kind, **settings))
    found = _mine(network, digits, (3, 12, 11, 1), "next", lowest=True)
    assert len(found.rows) == 2 * 12


def test_a_model_that_is_not_a_single_chain_is_refused(digits: Dataset) -> None:
    """A list of layers does not tell what is seen when there are two ways to the pixels."""
    import keras

    pixels = keras.Input((28, 28, 1))
    first = keras.layers.Conv2D(1, 3, name="conv1")(pixels)
    branched = keras.Model(pixels, keras.layers.Dense(10)(keras.layers.Flatten()(first)))
    words = r"must be a single chain of layers \(keras.Sequential\), found a Functional model$"
    with pytest.raises(ConfigError, match=words):
        _mine(branched, digits)
