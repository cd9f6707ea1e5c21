"""What cannot be mined is refused before work starts, and the message says what and why."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cnn.config import MiningConfig
from cnn.data.dataset import Dataset, Split
from cnn.errors import ArtifactError, ConfigError
from cnn.explain import activations, patches
from cnn.train import model, recipes

pytestmark = pytest.mark.usefixtures("prepared")


@pytest.fixture(scope="module")
def network(prepared: object) -> Any:
    """The network of the recipe `spec`, untrained."""
    return model.build(recipes.SPEC, (28, 28, 1), 10, seed=0)


@pytest.fixture
def nothing_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test fail that computes any activation."""

    def computed(*args: object, **settings: object) -> None:
        raise AssertionError("something was computed")

    monkeypatch.setattr(activations, "_padded", computed)
    monkeypatch.setattr(activations, "_linear", computed)


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
        ((0, 28, 28, 1), {}, r"^explain\.split: test is refused, it has no images here$"),
        (
            (2, 28, 28, 1),
            {"patches_per_filter": 163},
            r"^explain\.patches_per_filter: 163 is refused; a filter of conv1 has 162 positions "
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
    (fault,) = refused.value.errors()
    assert ".".join(str(part) for part in fault["loc"]) == field


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
    network = model.build(recipes.SPEC, (28, 28, 1), 10, seed=0)
    kernel, bias = network.get_layer(damaged).get_weights()
    bias[1] = value
    network.get_layer(damaged).set_weights([kernel, bias])
    words = f"^weights of {damaged} are not finite; the model is damaged$"
    for settings in ({}, {"lowest": True}):
        with pytest.raises(ArtifactError, match=words):
            _mine(network, digits, _images(2, 28, 28, 1), layer="conv2", **settings)


def test_activations_beyond_float32_are_refused(digits: Dataset) -> None:
    """Finite weights can still overflow."""
    network = model.build(recipes.SPEC, (28, 28, 1), 10, seed=0)
    kernel, bias = network.get_layer("conv1").get_weights()
    kernel[..., 4] = 3e38
    network.get_layer("conv1").set_weights([kernel, bias])
    white = np.full((2, 28, 28, 1), 255, np.uint8)
    with pytest.raises(ArtifactError, match=r"^activations of conv1 are not finite"):
        _mine(network, digits, white)
