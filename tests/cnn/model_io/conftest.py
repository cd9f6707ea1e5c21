"""A small saved model, and changes to its archive."""

import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cnn.config.training import Training
from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError
from cnn.model_io import exports
from cnn.train import networks, recipes

Rewrite = Callable[[str, Callable[[bytes], bytes]], None]
Refusal = Callable[[], str]


@pytest.fixture(scope="session")
def tiny() -> Training:
    """Settings of a network with few units and few steps."""
    changes = {"precision": "float32", "conv1_filters": 2, "conv2_filters": 2, "dense1_units": 4}
    return recipes.FAST.model_copy(update={**changes, "steps": 20, "log_every": 20})


@pytest.fixture(scope="session")
def saved(
    digits: Dataset, tiny: Training, prepared: object, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of an untrained model."""
    folder = tmp_path_factory.mktemp("model")
    exports.save_model(folder, networks.build(tiny, digits.image_shape, 10, seed=0), digits)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def rewrite(folder: Path) -> Rewrite:
    """Change one file inside the copy's archive."""

    def apply(name: str, change: Callable[[bytes], bytes]) -> None:
        path = folder / "model.keras"
        with zipfile.ZipFile(path) as archive:
            parts = {item: archive.read(item) for item in archive.namelist()}
        parts[name] = change(parts[name])
        with zipfile.ZipFile(path, "w") as archive:
            for item, content in parts.items():
                archive.writestr(item, content)

    return apply


@pytest.fixture
def refusal(folder: Path) -> Refusal:
    """Open the copy; return the one short line with which it is refused, without warnings."""

    def load() -> str:
        with warnings.catch_warnings(record=True) as shown, pytest.raises(ArtifactError) as caught:
            warnings.simplefilter("always")
            exports.load_model(folder)
        assert shown == []
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 1000
        return message

    return load
