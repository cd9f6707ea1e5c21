"""Shared by the tests of the report: real material, assembled as the steps do it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn.compare.comparison import MatchedLayer
from cnn.compare.matching import Match
from cnn.config.run import MiningConfig
from cnn.data import dataset as datasets
from cnn.data.dataset import Dataset
from cnn.evaluate import evaluation
from cnn.explain import activations, filters, patches
from cnn.report.figures.contact_sheet import Sheet, Tile
from cnn.report.pages import body, html
from cnn.report.pages.body import Material
from cnn.store.refs import Kind
from cnn.train import fit, recipes, trained
from cnn.train.device import Device
from tests.cnn.report.helpers import ParsedPage
from tests.cnn.report.matched import PAIRS, layer_view

Assemble = Callable[..., Material]
DrawnTiles = Callable[[Callable[[], object]], list[Tile]]


def write_artifacts(root: Path, dataset: Dataset, fitted: fit.Fitted) -> dict[Kind, Path]:
    """Write the artifacts that a report reads; return their folders by kind."""
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
    mined = [
        patches.mine(fitted.model, dataset, MiningConfig(layer=layer), dataset.class_names)
        for layer in layers
    ]
    patches.write(folders["patches"], mined)
    return folders


def train_briefly(dataset: Dataset, **changes: Any) -> fit.Fitted:
    """Train a small network on a data set."""
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
    """Everything a report on those artifacts shows."""
    return body.gather(artifacts)


@pytest.fixture(scope="session")
def report(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report on it."""
    folder = tmp_path_factory.mktemp("report")
    body.write(folder, material, 24)
    return folder


@pytest.fixture(scope="session")
def page(report: Path) -> ParsedPage:
    """The body of that report, parsed."""
    return ParsedPage((report / html.BODY_NAME).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def assemble(tmp_path_factory: pytest.TempPathFactory, prepared: object) -> Assemble:
    """A function that trains a few steps on a data set and returns the material of a report."""

    def assembled(dataset: Dataset, **changes: Any) -> Material:
        fitted = train_briefly(dataset, steps=4, log_every=2, **changes)
        return body.gather(write_artifacts(tmp_path_factory.mktemp("other"), dataset, fitted))

    return assembled


@pytest.fixture
def layer(rng: np.random.Generator) -> MatchedLayer:
    """A layer with a pair of each status; kernels are 5 x 5 before and 3 x 3 after."""
    before, after = layer_view(rng, (5, 5, 1), silent=(2,)), layer_view(rng, (3, 3, 1), silent=(3,))
    return MatchedLayer(Match("conv1", PAIRS, 0.25), before, after)


@pytest.fixture
def drawn_tiles(monkeypatch: pytest.MonkeyPatch) -> DrawnTiles:
    """A function that calls another and returns the tiles of the contact sheet it draws."""

    def tiles(draw: Callable[[], object]) -> list[Tile]:
        sheets: list[Sheet] = []

        def keep(sheet: Sheet) -> None:
            sheets.append(sheet)

        monkeypatch.setattr(Sheet, "draw", keep)
        draw()
        return [tile for row in sheets[0].rows for tile in row if tile is not None]

    return tiles
