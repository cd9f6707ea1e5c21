"""Case 10: sorted labels, and a validation split that holds only the last classes."""

from pathlib import Path

import numpy as np
import pytest

from cnn.config.run import RuntimeConfig
from cnn.data.dataset import Dataset
from cnn.evaluate import evaluation
from cnn.train import device, networks, recipes
from tests.cases import inputs


def ordered(order: str) -> inputs.Arrays:
    """Return 120 training images with their labels sorted, reversed, or in turns."""
    arrays = inputs.good_set(n_train=120)
    by_label = np.argsort(arrays["train-labels"], kind="stable")
    index = {"sorted": by_label, "reversed": by_label[::-1], "turns": np.arange(120)}[order]
    return {name: a[index] if "train" in name else a for name, a in arrays.items()}


def classes(dataset: Dataset, split: str) -> list[int]:
    return dataset.class_counts(split)


@pytest.mark.parametrize("order", ["sorted", "reversed", "turns"])
@pytest.mark.parametrize("fraction", [1 / 12, 0.2, 0.5])
def test_every_class_is_in_both_parts(tmp_path: Path, order: str, fraction: float) -> None:
    """The share of each class is within one image of the fraction, whatever the order."""
    folder = inputs.write_set(tmp_path, ordered(order))
    dataset = inputs.load(folder, validation_fraction=fraction)
    train, validation = classes(dataset, "train"), classes(dataset, "validation")
    assert np.add(train, validation).tolist() == [12] * 10
    assert min(train) >= 1
    assert min(validation) >= 1
    assert np.abs(np.array(validation) - 12 * fraction).max() <= 1
    ids = [set(dataset.splits[name].ids.tolist()) for name in ("train", "validation")]
    assert ids[0] & ids[1] == set()
    assert ids[0] | ids[1] == set(range(120))


def test_the_seed_decides_which_images(tmp_path: Path) -> None:
    """The same seed holds out the same images; another one others."""
    folder = inputs.write_set(tmp_path, ordered("sorted"))
    held_out = [
        inputs.load(folder, split_seed=seed).splits["validation"].ids.tolist() for seed in (0, 0, 1)
    ]
    assert held_out[0] == held_out[1] != held_out[2]


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.9])
def test_test_images_are_never_used_for_validation(tmp_path: Path, fraction: float) -> None:
    """The test split is the test file, in its order."""
    arrays = ordered("sorted")
    dataset = inputs.load(inputs.write_set(tmp_path, arrays), validation_fraction=fraction)
    assert dataset.splits["test"].ids.tolist() == list(range(20))
    np.testing.assert_array_equal(dataset.splits["test"].labels, arrays["t10k-labels"])
    inputs.assert_equal(dataset, arrays)


def test_class_folders_are_split_alike(tmp_path: Path) -> None:
    """Pictures lie class by class: a seventh of each is for testing, and then validation."""
    names = tuple(f"class {i}" for i in range(5))
    dataset = inputs.load(inputs.class_folders(tmp_path, 28, names), validation_fraction=0.25)
    assert classes(dataset, "test") == [4] * 5
    assert classes(dataset, "validation") == [6] * 5
    ids = np.concatenate([split.ids for split in dataset.splits.values()])
    assert sorted(ids.tolist()) == list(range(140))


@pytest.mark.parametrize("fraction", [0.2, 0.0])
def test_class_counts_of_both_parts_stand_in_the_metrics(tmp_path: Path, fraction: float) -> None:
    """One row a class and part, in the table that has the accuracy."""
    device.prepare(RuntimeConfig())
    folder = inputs.write_set(tmp_path, ordered("sorted"))
    dataset = inputs.load(folder, validation_fraction=fraction)
    network = networks.build(
        recipes.FAST.model_copy(update={"dense1_units": 4}), dataset.image_shape, 10, seed=0
    )
    rows = evaluation.evaluate(network, dataset, 15).tables["metrics"]
    counts = {
        split: [
            row["value"]
            for row in rows
            if row["split"] == split and row["metric"].startswith("n_images_class_")
        ]
        for split in dataset.splits
    }
    assert counts["train"] == classes(dataset, "train")
    assert counts["validation"] == (classes(dataset, "validation") if fraction else [])
    assert counts["test"] == [2] * 10
