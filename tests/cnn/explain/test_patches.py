"""Mined patches: the strongest positions with their boxes, pixels, labels and projections."""

from typing import Any

import numpy as np
import pytest

from cnn.data.dataset import Dataset
from cnn.explain.patches import Patches
from cnn.progress import Progress
from cnn.train import fit
from tests.cnn.explain import oracle, planted
from tests.cnn.explain.planted import mine, with_images

pytestmark = pytest.mark.usefixtures("prepared")

SIZES = {"conv1": 12, "conv2": 20, "pool": 22}  # of a patch, in pixels
Mined = dict[str, Patches]  # by layer
every_layer = pytest.mark.parametrize("layer", SIZES)


@pytest.fixture(scope="module")
def mined(trained: fit.Fitted, digits: Dataset) -> Mined:
    """The 14 strongest patches of each filter in the test images, two more than have views."""
    return {layer: mine(trained.model, layer, digits, patches_per_filter=14) for layer in SIZES}


@every_layer
def test_rows_equal_a_full_sort_by_brute_force(
    mined: Mined, trained: fit.Fitted, digits: Dataset, layer: str
) -> None:
    """All filters over 257 test images.

    Noise everywhere outside the clipped box changes no activation by 1e-5 of its value.
    """
    test, rows = digits.splits["test"], mined[layer].rows
    values = oracle.activations(trained.model, layer, test.images)
    assert oracle.n_agreeing_ranks(rows, values, 14, test.ids) > 0.8 * len(rows) > 0
    oracle.check_that_boxes_hold_all_that_counts(trained.model, test.images, rows, test.ids)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_split_is_a_setting(trained: fit.Fitted, digits: Dataset, split: str) -> None:
    """Image ids are the split's own, not indices into it."""
    rows = mine(trained.model, "conv1", digits, split=split, patches_per_filter=2).rows
    searched = digits.splits[split]
    values = oracle.activations(trained.model, "conv1", searched.images)
    oracle.n_agreeing_ranks(rows, values, 2, searched.ids)
    assert {row["split"] for row in rows} == {split}


def test_rows_name_the_label_and_the_prediction(
    mined: Mined, trained: fit.Fitted, digits: Dataset
) -> None:
    """As the split's labels and Keras's own predict give them."""
    test, names = digits.splits["test"], digits.class_names
    predicted = trained.model.predict(test.images.astype(np.float32), verbose=0).argmax(axis=1)
    index = oracle.indices(test.ids, len(test))
    for row in mined["conv1"].rows:
        label, prediction = (
            classes[index[row["image_id"]]] for classes in (test.labels, predicted)
        )
        assert (row["label"], row["prediction"]) == (label, prediction)
        assert (row["label_name"], row["prediction_name"]) == (names[label], names[prediction])
        assert (row["layer"], row["split"]) == ("conv1", "test")


def _positions(found: Patches, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in (*names, "image_id", "y", "x")) for row in found.rows]


@pytest.fixture(scope="module")
def two_filters(prepared: object) -> Any:
    """A network of two filters without bias: the first never fires, the second on any light."""
    network = planted.build(conv1_filters=2, conv2_filters=2, dense1_units=4, conv_bias=False)
    with planted.weights(network, "conv1") as (kernel,):
        kernel[:] = [-0.1, 0.1]
    return network


def test_where_fewer_positions_fire_there_are_fewer_rows(two_filters: Any, digits: Dataset) -> None:
    """One lit pixel in one of three images gives one row; all other patches and views are 0."""
    images = np.zeros((3, 28, 28, 1), np.uint8)
    images[1, 0, 0] = 255
    found = mine(two_filters, "conv1", with_images(digits, images, 100), patches_per_filter=3)
    assert _positions(found, "filter", "rank", "n_tied") == [(1, 1, 0, 101, 0, 0)]
    assert found.rows[0]["activation"] == pytest.approx(0.1)
    projections = found.views["projections"]
    assert found.pixels.shape == projections.shape == (2, 3, 12, 12, 1)
    assert found.pixels[1, 0, 0, 0, 0] == found.pixels.sum() == 255
    np.testing.assert_allclose(projections[1, 0], 0.1 * 0.1, rtol=1e-5)
    assert np.count_nonzero(projections) == 12 * 12


def test_where_nothing_fires_there_are_no_rows(two_filters: Any, digits: Dataset) -> None:
    """The arrays keep their shape, and are 0."""
    black = with_images(digits, np.zeros((2, 28, 28, 1), np.uint8))
    found = mine(two_filters, "conv2", black, patches_per_filter=3)
    assert found.rows == []
    for array in found.views.values():
        assert array.shape == (2, 3, 20, 20, 1)
        assert not array.any()


def test_patches_of_colour_images_keep_their_channels(
    digits: Dataset, rng: np.random.Generator
) -> None:
    """float32 RGB images of another size: the pixels are the crop, in the images' own type."""
    images = rng.uniform(0, 255, (20, 24, 30, 3)).astype(np.float32)
    network = planted.build((24, 30, 3))
    found = mine(network, "conv1", with_images(digits, images), patches_per_filter=4)
    assert (found.pixels.shape, found.pixels.dtype) == ((25, 4, 12, 12, 3), np.float32)
    oracle.n_agreeing_ranks(found.rows, oracle.activations(network, "conv1", images), 4)
    for row in found.rows:
        crop = images[row["image_id"], row["y0"] : row["y1"], row["x0"] : row["x1"]]
        np.testing.assert_array_equal(found.pixels[row["filter"], row["rank"] - 1], crop)


def test_images_beyond_the_first_batch_are_searched(two_filters: Any, digits: Dataset) -> None:
    """The only lit image is the last of 1,003; progress ends with it."""
    images = np.zeros((1003, 28, 28, 1), np.uint8)
    images[1002, 27, 27] = 255
    reports: list[Progress] = []
    found = mine(two_filters, "conv1", with_images(digits, images, 100), reports.append)
    assert _positions(found) == [(1102, 8, 8)]
    assert [(item.done, item.total) for item in reports] == [(1000, 1003), (1003, 1003)]


def _viewed(found: Patches) -> list[tuple[dict[str, Any], Any]]:
    """Return each row that has a projection, with it."""
    rows = [row for row in found.rows if row["rank"] <= 12]
    return [(row, found.views["projections"][row["filter"], row["rank"] - 1]) for row in rows]


def _by_hand(network: Any, layer: str, image: Any, row: dict[str, Any]) -> Any:
    """Return the projection of a unit onto all pixels, tap by tap.

    The pool passes a unit's activation to the strongest of the four units of conv2, conv2 through
    its kernel to the units of conv1, with a ReLU that drops what is negative on the way down, and
    conv1 through its kernels, not mirrored, to the pixels.
    """
    first, second = (np.float64(network.get_layer(c).get_weights()[0]) for c in ("conv1", "conv2"))
    f, y, x, plane = row["filter"], row["y"], row["x"], np.zeros((28, 28, 1))
    if layer == "conv1":
        plane[2 * y : 2 * y + 12, 2 * x : 2 * x + 12] = row["activation"] * first[..., f]
        return plane
    if layer == "pool":
        values = oracle.activations(network, "conv2", image[None])[0, ..., f]
        block = values[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        y, x = np.unravel_index(block.argmax(), (2, 2)) + np.array([2 * y, 2 * x])
    for i, j in np.ndindex(5, 5):
        top, left = y + i - 2, x + j - 2
        if 0 <= top < 9 and 0 <= left < 9:
            signal = np.maximum(row["activation"] * second[i, j, :, f], 0)
            plane[2 * top : 2 * top + 12, 2 * left : 2 * left + 12] += first @ signal
    return plane


@every_layer
def test_a_projection_equals_one_by_hand_and_is_cropped_like_the_pixels(
    mined: Mined, trained: fit.Fitted, digits: Dataset, layer: str
) -> None:
    """The first 12 ranks have one, float32; it is exactly 0 where the box is outside the image."""
    test, found, size = digits.splits["test"], mined[layer], SIZES[layer]
    index, n_outside = oracle.indices(test.ids, len(test)), 0
    n_filters, projections = len(found.pixels), found.views["projections"]
    assert found.pixels.shape == (n_filters, 14, size, size, 1)
    assert (projections.shape, projections.dtype) == ((n_filters, 12, size, size, 1), np.float32)
    assert all(projection.any() for _, projection in _viewed(found))
    viewed = _viewed(found)[:: 7 if layer == "pool" else 1]
    around = [(4, 4), (4, 4), (0, 0)]
    outside = np.pad(np.zeros((28, 28, 1), bool), around, constant_values=True)
    for row, projection in viewed:
        plane = _by_hand(trained.model, layer, test.images[index[row["image_id"]]], row)
        box = slice(row["y0"] + 4, row["y1"] + 4), slice(row["x0"] + 4, row["x1"] + 4)
        expected = np.pad(plane, around)[box]
        np.testing.assert_allclose(projection, expected, atol=1e-5 * np.abs(expected).max())
        assert np.abs(plane).sum() == pytest.approx(np.abs(expected).sum()), "all lies in the box"
        assert not projection[outside[box]].any()
        n_outside += bool(outside[box].any())
    assert (0 < n_outside < len(viewed)) == (layer != "conv1")


@every_layer
def test_the_lowest_have_no_views(trained: fit.Fitted, digits: Dataset, layer: str) -> None:
    """They have no positive activation to project."""
    found = mine(trained.model, layer, digits, lowest=True, filters=(0,))
    assert list(found.views) == ["patches"]
