"""Mining with every option equals a full sort, on a network whose activations are whole numbers.

Whole numbers are exact in float32 and in float64, and many of them are equal: every row must
be the one that the order names.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cnn.config.run import MiningConfig
from cnn.data.dataset import Dataset, Split
from cnn.explain import activations, patches
from cnn.train import networks, recipes
from tests.cnn.explain import oracle

pytestmark = pytest.mark.usefixtures("prepared")

N_IMAGES, FIRST_ID = 37, 500
N_FILTERS = {"conv1": 3, "conv2": 4, "pool": 4}
every_layer = pytest.mark.parametrize("layer", N_FILTERS)


@pytest.fixture(scope="module")
def network(prepared: object) -> Any:
    """A network whose convolutions have small whole weights; filter 0 of both seldom fires."""
    rng = np.random.default_rng(5)
    settings = recipes.SPEC.model_copy(
        update={"conv1_filters": 3, "conv2_filters": 4, "dense1_units": 8}
    )
    built = networks.build(settings, (28, 28, 1), 10, seed=0)
    for name, rare in (("conv1", -14), ("conv2", -30)):
        layer = built.get_layer(name)
        bias = rng.integers(-3, 4, layer.bias.shape)
        bias[0] = rare
        layer.set_weights([rng.integers(-2, 3, layer.kernel.shape), bias])
    return built


@pytest.fixture(scope="module")
def dataset(digits: Dataset) -> Dataset:
    """Black and white images, so that the scaled pixels are 0 and 1; five each are equal."""
    rng = np.random.default_rng(2)
    images = rng.choice(np.array([0, 0, 255], np.uint8), (N_IMAGES, 28, 28, 1))
    images[7:35] = np.tile(images[:7], (4, 1, 1, 1))
    labels, ids = rng.integers(0, 10, N_IMAGES), np.arange(N_IMAGES) + FIRST_ID
    return replace(digits, splits={**digits.splits, "test": Split(images, labels, ids)})


def _mine(network: Any, layer: str, dataset: Dataset, **settings: Any) -> patches.Patches:
    wanted = MiningConfig(layer=layer, **settings)
    return patches.mine(network, dataset, wanted, dataset.class_names)


def _check(
    network: Any, layer: str, dataset: Dataset, sign: int = 1, **settings: Any
) -> list[list[int]]:
    """Assert that every row is that of a full sort; return each filter's [n_rows, n_tied]."""
    images = dataset.splits["test"].images
    values = oracle.activations(network, layer, images, rectified=sign == 1)
    assert (values == np.round(values)).all()
    found = _mine(network, layer, dataset, **settings)
    options = {
        "floor": 0.0 if sign == 1 else -np.inf,
        "one_per_image": settings.get("one_per_image", False),
        "radius": settings.get("suppression_radius", 0),
    }
    counted, rows = [], iter(found.rows)
    for f in settings.get("filters", range(N_FILTERS[layer])):
        k = settings.get("patches_per_filter", 12)
        wanted, n_tied = oracle.mined(sign * values[..., f], k, **options)
        for rank, place in enumerate(wanted, start=1):
            row = next(rows)
            box_y, box_x = oracle.box(layer, place.y), oracle.box(layer, place.x)
            assert [row[name] for name in ("layer", "filter", "rank")] == [layer, f, rank]
            assert row["image_id"] == place.image + FIRST_ID
            assert (row["y"], row["x"]) == (place.y, place.x)
            assert row["activation"] == sign * place.activation
            assert row["n_tied"] == n_tied
            assert [row[name] for name in ("y0", "y1", "clipped_y0", "clipped_y1")] == [*box_y]
            assert [row[name] for name in ("x0", "x1", "clipped_x0", "clipped_x1")] == [*box_x]
            padded = np.pad(images[place.image], [(8, 8), (8, 8), (0, 0)])
            crop = padded[8 + box_y[0] : 8 + box_y[1], 8 + box_x[0] : 8 + box_x[1]]
            np.testing.assert_array_equal(found.pixels[f, rank - 1], crop)
        assert not found.pixels[f, len(wanted) :].any()
        counted.append([len(wanted), n_tied])
    assert next(rows, None) is None, "more rows than a full sort has"
    return counted


OPTIONS: list[dict[str, Any]] = [
    {},
    {"patches_per_filter": 1},
    {"one_per_image": True},
    {"suppression_radius": 1},
    {"suppression_radius": 3},
    {"suppression_radius": 2, "one_per_image": True},
    {"filters": (0, 2)},
]


@every_layer
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("largest_batch", [1000, 5])
def test_the_strongest_are_those_of_a_full_sort(
    network: Any,
    dataset: Dataset,
    layer: str,
    options: dict[str, Any],
    largest_batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows, boxes, pixels and n_tied, in one batch and in many, with planted ties."""
    monkeypatch.setattr(activations, "_LARGEST_BATCH", largest_batch)
    counted = _check(network, layer, dataset, **options)
    if not options:
        assert any(n_tied for _, n_tied in counted), "no tie at the last rank: nothing shown"


@every_layer
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_lowest_are_those_of_a_full_sort_before_the_relu(
    network: Any,
    dataset: Dataset,
    layer: str,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the lowest up, negative where the layer itself has a ReLU; zeros and more count too."""
    monkeypatch.setattr(activations, "_LARGEST_BATCH", 10)
    counted = _check(network, layer, dataset, sign=-1, lowest=True, **options)
    k = options.get("patches_per_filter", 12)
    assert [n for n, _ in counted] == [k] * len(counted), "every filter has its lowest"
    rows = _mine(network, layer, dataset, lowest=True, **options).rows
    assert all((row["activation"] < 0) == (layer != "pool") for row in rows)
    assert not any(np.signbit(row["activation"]) for row in rows if layer == "pool")


@every_layer
def test_more_patches_than_positions_that_fire(network: Any, dataset: Dataset, layer: str) -> None:
    """All that fire, in order, without a tie; the others' pixels are black."""
    n_positions = N_IMAGES * {"conv1": 81, "conv2": 81, "pool": 16}[layer]
    counted = _check(network, layer, dataset, patches_per_filter=n_positions)
    assert 0 < counted[0][0] < n_positions
    assert [n_tied for _, n_tied in counted] == [0] * len(counted)


def test_one_per_image_has_at_most_as_many_rows_as_images_fire(
    network: Any, dataset: Dataset
) -> None:
    """Asked for as many as there are images."""
    options = {"patches_per_filter": N_IMAGES, "one_per_image": True}
    counted = _check(network, "conv1", dataset, **options)
    assert 0 < counted[0][0] < N_IMAGES
    found = _mine(network, "conv1", dataset, **options)
    places = [(row["filter"], row["image_id"]) for row in found.rows]
    assert len(set(places)) == len(places)


@every_layer
def test_filters_that_are_not_asked_for_have_no_pixels_and_no_projections(
    network: Any, dataset: Dataset, layer: str
) -> None:
    """Their places in the arrays stay, so that a filter's number is its index."""
    found = _mine(network, layer, dataset, filters=(1,))
    assert {row["filter"] for row in found.rows} == {1}
    for array in found.views.values():
        assert len(array) == N_FILTERS[layer]
        assert array[1].any()
        assert not np.delete(array, 1, axis=0).any()
