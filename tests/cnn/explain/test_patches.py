"""Patches: the strongest places of real images, with their pixels and boxes."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cnn.config.run import MiningConfig
from cnn.data.dataset import Dataset, Split
from cnn.errors import ArtifactError, ConfigError
from cnn.explain import patches
from cnn.progress import Progress
from cnn.train import fit, networks, recipes
from tests.cnn.explain import oracle

pytestmark = pytest.mark.usefixtures("prepared")

K = 12


def _mine(
    network: Any,
    layer: str,
    dataset: Dataset,
    report: Any = lambda progress: None,
    **settings: Any,
) -> patches.Patches:
    wanted = MiningConfig(layer=layer, **settings)
    return patches.mine(network, dataset, wanted, dataset.class_names, report)


@pytest.fixture(scope="module")
def mined(trained: fit.Fitted, digits: Dataset) -> patches.Patches:
    """The 12 strongest patches of each conv1 filter in the test images."""
    return _mine(trained.model, "conv1", digits)


def _by_filter(mined: patches.Patches, split: Split) -> list[list[dict[str, Any]]]:
    """Return each filter's rows, with `image`, the index of the image in the split."""
    index = {int(image_id): i for i, image_id in enumerate(split.ids)}
    rows = [row | {"image": index[row["image_id"]]} for row in mined.rows]
    return [[row for row in rows if row["filter"] == f] for f in range(len(mined.pixels))]


def test_rows_equal_a_full_sort_of_a_brute_force_convolution(
    mined: patches.Patches, trained: fit.Fitted, digits: Dataset
) -> None:
    """All 25 filters over 257 test images; ranks from 1, without a gap."""
    test = digits.splits["test"]
    kernel, bias = trained.model.get_layer("conv1").get_weights()
    activations = oracle.convolve(test.images, kernel, bias, 2)
    n_sure = sum(
        oracle.n_agreeing_ranks(rows, activations, f, K)
        for f, rows in enumerate(_by_filter(mined, test))
    )
    assert n_sure > 0.8 * len(mined.rows) > 0


def _crop(image: Any, row: dict[str, Any], prefix: str = "") -> Any:
    y0, x0, y1, x1 = (row[prefix + name] for name in ("y0", "x0", "y1", "x1"))
    return image[y0:y1, x0:x1]


def test_pixels_are_those_of_the_box_in_the_image(mined: patches.Patches, digits: Dataset) -> None:
    """conv1 looks at 12 x 12 pixels that begin at twice its position, never outside."""
    test = digits.splits["test"]
    assert (mined.pixels.shape, mined.pixels.dtype) == ((25, K, 12, 12, 1), np.uint8)
    for rows in _by_filter(mined, test):
        for row in rows:
            box = [row[name] for name in ("y0", "x0", "y1", "x1")]
            y, x = 2 * row["y"], 2 * row["x"]
            assert box == [y, x, y + 12, x + 12]
            assert [row[f"clipped_{name}"] for name in ("y0", "x0", "y1", "x1")] == box
            np.testing.assert_array_equal(
                mined.pixels[row["filter"], row["rank"] - 1], _crop(test.images[row["image"]], row)
            )
    assert len({row["y"] for row in mined.rows}) > 3
    assert any(row["y"] != row["x"] for row in mined.rows)


def test_rows_say_what_the_image_is_and_what_the_model_says(
    mined: patches.Patches, trained: fit.Fitted, digits: Dataset
) -> None:
    """Label and prediction with their names, layer and split."""
    test = digits.splits["test"]
    predicted = trained.model.predict(test.images.astype(np.float32), verbose=0).argmax(axis=1)
    names = digits.class_names
    for rows in _by_filter(mined, test):
        for row in rows:
            label, prediction = test.labels[row["image"]], predicted[row["image"]]
            assert (row["label"], row["prediction"]) == (label, prediction)
            assert (row["label_name"], row["prediction_name"]) == (names[label], names[prediction])
            assert (row["layer"], row["split"]) == ("conv1", "test")


def _row_lists(rows: Iterable[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


def test_boxes_of_conv2_reach_outside_and_what_lies_there_is_black(
    trained: fit.Fitted, digits: Dataset
) -> None:
    """20 x 20 pixels from -4 on; inside of the clipped box the image, outside of it 0."""
    test = digits.splits["test"]
    bright = replace(test, images=np.maximum(test.images, 1))
    dataset = replace(digits, splits={**digits.splits, "test": bright})
    mined = _mine(trained.model, "conv2", dataset, patches_per_filter=3)
    assert mined.pixels.shape == (64, 3, 20, 20, 1)
    n_outside = 0
    for rows in _by_filter(mined, test):
        for row in rows:
            y, x = 2 * row["y"] - 4, 2 * row["x"] - 4
            assert [row[name] for name in ("y0", "x0", "y1", "x1")] == [y, x, y + 20, x + 20]
            clipped = [row[f"clipped_{name}"] for name in ("y0", "x0", "y1", "x1")]
            assert clipped == [max(y, 0), max(x, 0), min(y + 20, 28), min(x + 20, 28)]
            padded = np.pad(bright.images[row["image"]], [(4, 4), (4, 4), (0, 0)])
            found = mined.pixels[row["filter"], row["rank"] - 1]
            np.testing.assert_array_equal(found, padded[y + 4 : y + 24, x + 4 : x + 24])
            n_outside += int((found == 0).any())
    assert 0 < n_outside < len(mined.rows)


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_other_pixels_than_those_in_the_box_decide_nothing(
    trained: fit.Fitted, digits: Dataset, layer: str
) -> None:
    """Noise everywhere outside of the clipped box moves no activation by 1e-5 of its value."""
    test = digits.splits["test"]
    found = _by_filter(_mine(trained.model, layer, digits), test)
    rows = [row for rows in found for row in rows]
    oracle.check_that_boxes_hold_all_that_counts(trained.model, test.images, rows)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_split_is_a_setting(trained: fit.Fitted, digits: Dataset, split: str) -> None:
    """Image ids are those of the split that was searched, not places in it."""
    mined = _mine(trained.model, "conv1", digits, split=split, patches_per_filter=2)
    kernel, bias = trained.model.get_layer("conv1").get_weights()
    activations = oracle.convolve(digits.splits[split].images, kernel, bias, 2)
    for f, rows in enumerate(_by_filter(mined, digits.splits[split])):
        oracle.n_agreeing_ranks(rows, activations, f, 2)
    assert {row["split"] for row in mined.rows} == {split}
    assert {row["image_id"] for row in mined.rows} <= set(digits.splits[split].ids.tolist())


@pytest.fixture(scope="module")
def two_filters(digits: Dataset, prepared: object) -> Any:
    """A network of two filters without bias: the first never fires, the second on any light."""
    changes = {"conv1_filters": 2, "conv2_filters": 2, "dense1_units": 4, "conv_bias": False}
    network = networks.build(recipes.SPEC.model_copy(update=changes), (28, 28, 1), 10, seed=0)
    kernel = np.stack([np.full((12, 12, 1), -0.1), np.full((12, 12, 1), 0.1)], axis=-1)
    network.get_layer("conv1").set_weights([kernel])
    return network


def _with_test(digits: Dataset, images: Any) -> Dataset:
    n = len(images)
    test = Split(images, np.zeros(n, np.int64), np.arange(100, 100 + n))
    return replace(digits, splits={**digits.splits, "test": test})


def test_a_dead_filter_has_no_rows_and_black_pixels(two_filters: Any, digits: Dataset) -> None:
    """Only filters that fire have patches."""
    mined = _mine(two_filters, "conv1", digits)
    assert {row["filter"] for row in mined.rows} == {1}
    assert len(mined.rows) == K
    assert not mined.pixels[0].any()
    assert mined.pixels[1].any()


def test_where_fewer_positions_fire_there_are_fewer_rows(two_filters: Any, digits: Dataset) -> None:
    """One lit pixel in the corner of one of three images: one position, eleven black patches."""
    images = np.zeros((3, 28, 28, 1), np.uint8)
    images[1, 0, 0] = 255
    mined = _mine(two_filters, "conv1", _with_test(digits, images))
    assert _row_lists(mined.rows, "filter", "rank", "image_id", "y", "x", "n_tied") == [
        (1, 1, 101, 0, 0, 0)
    ]
    assert mined.rows[0]["activation"] == pytest.approx(0.1)
    assert mined.pixels[1, 0, 0, 0, 0] == 255
    assert mined.pixels.sum() == 255


def test_positions_tied_with_the_last_row_are_counted(two_filters: Any, digits: Dataset) -> None:
    """Two white images: 162 equal positions, of which the first twelve are kept."""
    images = np.full((2, 28, 28, 1), 255, np.uint8)
    mined = _mine(two_filters, "conv1", _with_test(digits, images))
    assert _row_lists(mined.rows, "rank", "image_id", "y", "x") == [
        (i + 1, 100, i // 9, i % 9) for i in range(K)
    ]
    assert {row["n_tied"] for row in mined.rows} == {2 * 81 - K}


def test_nothing_is_mined_where_nothing_fires(two_filters: Any, digits: Dataset) -> None:
    """Black images: no rows, black pixels."""
    black = _with_test(digits, np.zeros((2, 28, 28, 1), np.uint8))
    mined = _mine(two_filters, "conv1", black)
    assert mined.rows == []
    assert mined.pixels.shape == (2, K, 12, 12, 1)
    assert not mined.pixels.any()


def test_a_split_without_images_is_refused(two_filters: Any, digits: Dataset) -> None:
    """Nothing was looked at, so nothing may be said of any filter."""
    empty = _with_test(digits, np.zeros((0, 28, 28, 1), np.uint8))
    with pytest.raises(ConfigError, match=r"^split: test is refused"):
        _mine(two_filters, "conv1", empty)


def test_patches_of_colour_images_keep_their_channels(
    digits: Dataset, rng: np.random.Generator
) -> None:
    """float32 RGB images of another size: the pixels are the crop, in the images' own type."""
    images = rng.uniform(0, 255, (20, 24, 30, 3)).astype(np.float32)
    network = networks.build(recipes.SPEC, (24, 30, 3), 10, seed=0)
    dataset = _with_test(digits, images)
    mined = _mine(network, "conv1", dataset, patches_per_filter=4)
    assert (mined.pixels.shape, mined.pixels.dtype) == ((25, 4, 12, 12, 3), np.float32)
    kernel, bias = network.get_layer("conv1").get_weights()
    activations = oracle.convolve(images, kernel, bias, 2)
    for f, rows in enumerate(_by_filter(mined, dataset.splits["test"])):
        oracle.n_agreeing_ranks(rows, activations, f, 4)
        for row in rows:
            np.testing.assert_array_equal(
                mined.pixels[f, row["rank"] - 1], _crop(images[row["image"]], row)
            )


def test_images_beyond_the_first_batch_are_searched(two_filters: Any, digits: Dataset) -> None:
    """The only lit image is the 1,003rd of 1,003; progress ends with it."""
    images = np.zeros((1003, 28, 28, 1), np.uint8)
    images[1002, 27, 27] = 255
    reports: list[Progress] = []
    dataset = _with_test(digits, images)
    mined = _mine(two_filters, "conv1", dataset, reports.append)
    assert _row_lists(mined.rows, "image_id", "y", "x") == [(1102, 8, 8)]
    assert [(item.done, item.total) for item in reports] == [(1000, 1003), (1003, 1003)]


@pytest.mark.parametrize("damage", [np.nan, np.inf])
def test_damaged_weights_are_refused(digits: Dataset, damage: float) -> None:
    """A kernel that is no number gives no patches, and is not taken for a dead filter."""
    network = networks.build(recipes.SPEC, (28, 28, 1), 10, seed=0)
    kernel, bias = network.get_layer("conv1").get_weights()
    kernel[0, 0, 0, 2] = damage
    network.get_layer("conv1").set_weights([kernel, bias])
    with pytest.raises(ArtifactError, match="not finite"):
        _mine(network, "conv1", digits)
