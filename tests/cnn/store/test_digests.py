"""Content digests: two files with the same content have the same digest."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cnn.store import digests

CONFIG = {"class_name": "Functional", "layers": [{"name": "conv1", "shared_object_id": 1, "n": 25}]}


def keras_file(
    path: Path, config: dict[str, Any], year: int = 2020, name: str = "conv1", **weights: Any
) -> str:
    """Write a .keras archive as Keras does; return its content digest."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.attrs["written"] = year
        for part in ("kernel", "bias"):
            file[f"layers/{name}/vars/{part}"] = weights.get(part, np.arange(4, dtype=np.float32))
    with zipfile.ZipFile(path, "w") as archive:
        for part, text in (
            ("metadata.json", json.dumps({"date_saved": year})),
            ("config.json", json.dumps(config)),
            ("model.weights.h5", stream.getvalue()),
        ):
            archive.writestr(zipfile.ZipInfo(part, (year, 1, 1, 0, 0, 0)), text)
    return digests.content_digest(path)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The content digest of the model that others are compared with."""
    return keras_file(tmp_path / "model.keras", CONFIG)


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        dict(reversed(CONFIG.items())),
        {**CONFIG, "shared_object_id": 7},
        {**CONFIG, "layers": [{"name": "conv1", "shared_object_id": 140_213_001, "n": 25}]},
        {**CONFIG, "layers": [{"name": "conv1", "n": 25}]},
    ],
)
def test_a_model_saved_again_has_the_same_digest(
    tmp_path: Path, model: str, config: dict[str, Any]
) -> None:
    """Dates, the order of names and memory addresses do not count."""
    again = tmp_path / "again.keras"
    assert keras_file(again, config, year=2024) == model
    assert digests.file_digest(again) != digests.file_digest(tmp_path / "model.keras")


@pytest.mark.parametrize(
    "change",
    [
        {"config": {**CONFIG, "layers": [{"name": "conv1", "shared_object_id": 1, "n": 26}]}},
        {"kernel": np.array([0, 1, 2, 4], np.float32)},
        {"kernel": np.arange(4, dtype=np.float32).view(np.int32)},
        {"kernel": np.arange(4, dtype=np.float32).reshape(2, 2)},
        {"bias": -np.arange(4, dtype=np.float32)},
        {"name": "conv2"},
    ],
    ids=["config", "weight", "type", "shape", "bias", "layer"],
)
def test_a_different_model_has_a_different_digest(
    tmp_path: Path, model: str, change: dict[str, Any]
) -> None:
    """Every weight with its name, dtype and shape counts, and so does the config."""
    assert keras_file(tmp_path / "other.keras", **{"config": CONFIG, **change}) != model


def test_the_content_of_any_other_file_is_its_bytes(tmp_path: Path) -> None:
    """For tables, figures and arrays both digests are the SHA-256 of the file."""
    path = tmp_path / "table.parquet"
    path.write_bytes(b"PAR1" * 1_000_000)
    expected = hashlib.sha256(b"PAR1" * 1_000_000).hexdigest()
    assert digests.file_digest(path) == digests.content_digest(path) == expected
