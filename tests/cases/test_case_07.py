"""Case 07: EMNIST pictures lie on their side."""

import json
from pathlib import Path

import numpy as np
import pytest

from cnn.config.run import RuntimeConfig
from cnn.config.training import Training
from cnn.model_io import exports
from cnn.train import device, networks, recipes
from tests.cases import inputs

GOOD = inputs.good_set()
LYING = {name: a.transpose(0, 2, 1) if "images" in name else a for name, a in GOOD.items()}
PREFIXES = ["emnist-digits-", "emnist-letters-", "emnist-", "EMNIST-balanced-"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_emnist_is_set_upright_once(tmp_path: Path, prefix: str) -> None:
    """Files that are called EMNIST's hold transposed pictures; they equal the upright set."""
    dataset = inputs.load(inputs.write_set(tmp_path, LYING, prefix))
    inputs.assert_equal(dataset, GOOD)
    assert all(inputs.is_upright(image) for image in dataset.splits["test"].images)
    assert dataset.origin["transposed"] is True


@pytest.mark.parametrize("prefix", ["", "own-", "not-emnist-", "qmnist-"])
def test_other_data_stay_as_they_are(tmp_path: Path, prefix: str) -> None:
    """Nothing is turned that nobody asked to turn."""
    dataset = inputs.load(inputs.write_set(tmp_path, LYING, prefix))
    inputs.assert_equal(dataset, LYING)
    assert not any(inputs.is_upright(image) for image in dataset.splits["test"].images)
    assert dataset.origin["transposed"] is False


@pytest.mark.parametrize(
    ("prefix", "asked", "turned"), [("own-", True, True), ("emnist-", False, False)]
)
def test_a_setting_rules_over_the_name(
    tmp_path: Path, prefix: str, asked: bool, turned: bool
) -> None:
    """Own data in EMNIST's form, or a mended copy of EMNIST, are a matter of one setting."""
    dataset = inputs.load(inputs.write_set(tmp_path, LYING, prefix), transpose=asked)
    inputs.assert_equal(dataset, GOOD if turned else LYING)


@pytest.mark.parametrize("size", [(32, 20), (20, 32)])
def test_images_that_are_not_square_are_turned_too(tmp_path: Path, size: tuple[int, int]) -> None:
    """Height and width change places with the pixels."""
    upright = inputs.good_set(size=size)
    lying = {n: a.transpose(0, 2, 1) if "images" in n else a for n, a in upright.items()}
    dataset = inputs.load(inputs.write_set(tmp_path, lying, "emnist-x-"))
    inputs.assert_equal(dataset, upright)
    assert dataset.image_shape == (*size, 1)


def test_own_pictures_are_turned_where_asked(tmp_path: Path) -> None:
    """EMNIST as a folder of PNG files lies on its side as well."""
    glyphs = [inputs.glyph(label).T for label in range(2)]
    for i in range(8):
        files = {f"{label}/{i}.png": inputs.png(glyph) for label, glyph in enumerate(glyphs)}
        inputs.write_pictures(tmp_path, files)
    for asked in (True, False):
        images = inputs.load(tmp_path, transpose=asked).splits["train"].images
        assert [inputs.is_upright(image) for image in images] == [asked] * len(images)


def test_letters_have_26_classes_with_the_names_of_the_mapping(tmp_path: Path) -> None:
    """Labels 1..26 leave no class 0 behind; A and a are one letter there."""
    letters = inputs.good_set(n_train=260, n_test=52, n_classes=26)
    files = {n: a.transpose(0, 2, 1) if "images" in n else a + 1 for n, a in letters.items()}
    inputs.write_set(tmp_path, files, "emnist-letters-")
    dataset = inputs.load(tmp_path)
    assert dataset.class_names == tuple(str(label) for label in range(1, 27))
    lines = "".join(f"{label} {64 + label} {96 + label}\n" for label in range(1, 27))
    (tmp_path / "emnist-letters-mapping.txt").write_text(lines)
    dataset = inputs.load(tmp_path)
    assert (dataset.class_names[0], dataset.class_names[25]) == ("Aa", "Zz")
    inputs.assert_equal(dataset, letters)
    assert dataset.class_counts("test") == [2] * 26


def test_the_choice_stands_in_the_metadata_of_the_model(tmp_path: Path) -> None:
    """Who reads own scans with the model learns how its training images lay."""
    device.prepare(RuntimeConfig())
    for prefix in ("emnist-digits-", "own-"):
        folder = tmp_path / prefix
        dataset = inputs.load(inputs.write_set(folder, LYING, prefix))
        small: Training = recipes.FAST.model_copy(update={"dense1_units": 4})
        made = networks.build(small, dataset.image_shape, len(dataset.class_names), seed=0)
        exports.save_model(folder, made, dataset)
        sidecar = json.loads((folder / exports.SIDECAR_NAME).read_text())
        assert sidecar["trained_on"]["transposed"] is (prefix != "own-")
        assert np.prod(sidecar["input"]["shape"]) == 784
