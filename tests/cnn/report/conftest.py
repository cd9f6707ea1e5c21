"""What tests of the report share: real material, assembled as the steps do it."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn.config.run import MiningConfig
from cnn.data import dataset as datasets
from cnn.data.dataset import Dataset
from cnn.evaluate import evaluation
from cnn.explain import filters, patches
from cnn.report.pages import body
from cnn.report.pages.body import Material
from cnn.store.refs import Kind
from cnn.tables import parquet
from cnn.train import fit, recipes

Assemble = Callable[..., Material]


def write_artifacts(root: Path, dataset: Dataset, fitted: fit.Fitted) -> dict[Kind, Path]:
    """Write what the steps before the report write; return the folders by kind."""
    kinds: tuple[Kind, ...] = ("dataset", "model", "evaluation", "filters", "patches")
    folders: dict[Kind, Path] = {kind: root / kind for kind in kinds}
    for folder in folders.values():
        folder.mkdir()
    datasets.write(folders["dataset"], dataset)
    on = {"device": "cpu", "device_name": "a processor", "precision": "float32"}
    history = [asdict(point) | on for point in fitted.history]
    parquet.write_rows(folders["model"] / "history.parquet", "history", history)
    settings = {"seed": 0, **recipes.FAST.model_dump()}
    (folders["model"] / "training.json").write_text(json.dumps(settings), encoding="utf-8")
    measured = evaluation.evaluate(fitted.model, dataset, calibration_bins=15)
    for name, rows in measured.tables.items():
        parquet.write_rows(folders["evaluation"] / f"{name}.parquet", name, rows)
    rows: dict[str, list[Any]] = {"filters": [], "patches": []}
    for layer in patches.LAYERS:
        described = filters.describe(fitted.model, layer, dataset)
        rows["filters"] += described.rows
        np.save(folders["filters"] / f"filters-{layer}.npy", described.kernels)
        mined = patches.mine(fitted.model, dataset, MiningConfig(layer=layer), dataset.class_names)
        rows["patches"] += mined.rows
        np.save(folders["patches"] / f"patches-{layer}.npy", mined.pixels)
        np.save(folders["patches"] / f"projections-{layer}.npy", mined.projections)
    for kind in ("filters", "patches"):
        parquet.write_rows(folders[kind] / f"{kind}.parquet", kind, rows[kind])
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
