"""What tests of the report share: real material, assembled as the steps do it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnn.config.run import MiningConfig
from cnn.data import dataset as datasets
from cnn.data.dataset import Dataset
from cnn.evaluate import evaluation
from cnn.explain import activations, filters, patches
from cnn.report.pages import body
from cnn.report.pages.body import Material
from cnn.store.refs import Kind
from cnn.train import fit, recipes, trained
from cnn.train.device import Device

Assemble = Callable[..., Material]


def write_artifacts(root: Path, dataset: Dataset, fitted: fit.Fitted) -> dict[Kind, Path]:
    """Write what the steps before the report write; return the folders by kind."""
    kinds: tuple[Kind, ...] = ("dataset", "model", "evaluation", "filters", "patches")
    folders: dict[Kind, Path] = {kind: root / kind for kind in kinds}
    for folder in folders.values():
        folder.mkdir()
    datasets.write(folders["dataset"], dataset)
    cpu = Device("cpu", "a processor", 2)
    trained.write(folders["model"], fitted, dataset, recipes.FAST, 0, cpu)
    measured = evaluation.evaluate(fitted.model, dataset, calibration_bins=15)
    evaluation.write(folders["evaluation"], measured)
    layers = activations.explained_layers(fitted.model)
    described = [filters.describe(fitted.model, layer, dataset) for layer in layers]
    filters.write(folders["filters"], described)
    wanted = [MiningConfig(layer=layer) for layer in layers]
    names = dataset.class_names
    mined = [patches.mine(fitted.model, dataset, settings, names) for settings in wanted]
    patches.write(folders["patches"], mined)
    return folders


def train_briefly(dataset: Dataset, **changes: Any) -> fit.Fitted:
    """Train a network of few units on a data set."""
    sizes = {"precision": "float32", "conv1_filters": 6, "conv2_filters": 16, "dense1_units": 64}
    return fit.fit(dataset, recipes.FAST.model_copy(update={**sizes, **changes}), seed=0)


@pytest.fixture(scope="session")
def artifacts(
    tmp_path_factory: pytest.TempPathFactory, digits: Dataset, prepared: object
) -> dict[Kind, Path]:
    """The artifacts of a model of six filters, trained on `digits`, by kind."""
    fitted = train_briefly(digits, steps=60, log_every=20)
    return write_artifacts(tmp_path_factory.mktemp("artifacts"), digits, fitted)


@pytest.fixture(scope="session")
def material(artifacts: dict[Kind, Path]) -> Material:
    """All that a report on them shows."""
    return body.gather(artifacts)


@pytest.fixture(scope="session")
def assemble(tmp_path_factory: pytest.TempPathFactory, prepared: object) -> Assemble:
    """A function that trains a few steps on a data set and returns the report's material."""

    def assembled(dataset: Dataset, **changes: Any) -> Material:
        fitted = train_briefly(dataset, steps=4, log_every=2, **changes)
        return body.gather(write_artifacts(tmp_path_factory.mktemp("other"), dataset, fitted))

    return assembled
