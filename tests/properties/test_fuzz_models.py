"""Models with a damaged config around real weights: opened as described, or refused."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError
from cnn.model_io import exports
from cnn.train import networks as models
from cnn.train import recipes
from tests.properties.fuzzing import damaged_json, fuzz

pytestmark = pytest.mark.slow

TINY = {"conv1_filters": 2, "conv2_filters": 2, "dense1_units": 4}


@pytest.fixture(scope="module")
def parts(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The parts of an untrained model's archive, by name."""
    folder = tmp_path_factory.mktemp("model")
    settings = recipes.FAST.model_copy(update=TINY)
    exports.save_model(folder, models.build(settings, digits.image_shape, 10, seed=0), digits)
    with zipfile.ZipFile(folder / "model.keras") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(folder: Path, parts: dict[str, bytes]) -> None:
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@fuzz
@given(data=st.data())
def test_a_damaged_config_opens_with_its_weights_or_is_refused(
    parts: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any error of Keras becomes one line; a model that opens has all weights of the file."""
    folder = tmp_path_factory.getbasetemp()
    text = data.draw(damaged_json(json.loads(parts["config.json"])))
    write(folder, {**parts, "config.json": text.encode("utf-8", "surrogatepass")})
    try:
        model = exports.load_model(folder)
    except ArtifactError as error:
        assert str(folder / "model.keras") in str(error)
        assert "\n" not in str(error)
        return
    assert model.count_params() == 12 * 12 * 2 + 2 + 5 * 5 * 2 * 2 + 2 + 32 * 4 + 4 + 4 * 10 + 10
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
