"""Trained models as files that stock Keras opens, and back."""

import json
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError

MODEL_NAME, SIDECAR_NAME = "model.keras", "model.json"


def save_model(folder: Path, model: Any, dataset: Dataset) -> None:
    """Write model.keras, of stock layers only, and model.json, which says how to use it."""
    model.save(folder / MODEL_NAME)
    sidecar = {
        "input": {
            "shape": list(dataset.image_shape),
            "pixels": "0..255, any numeric type; the model scales them itself",
        },
        "output": "probabilities, one per class",
        "class_names": list(dataset.class_names),
        "trained_on": dict(dataset.origin),
        "n_weights": int(model.count_params()),
        "versions": {name: version(name) for name in ("tensorflow", "keras", "numpy")},
    }
    (folder / SIDECAR_NAME).write_text(json.dumps(sidecar, indent=2), encoding="utf-8")


def load_model(folder: Path) -> Any:
    """Return the keras.Model of an artifact's folder, opened in Keras's safe mode.

    Raises ArtifactError, with the versions, where it is no complete archive or this
    Keras cannot open it.
    """
    import keras

    path = folder / MODEL_NAME
    if not zipfile.is_zipfile(path):
        raise ArtifactError(f"{path}: not a complete .keras archive")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the archive's content leads to
        raise ArtifactError(
            f"{path}: written by Keras {_written_by(path)}, and Keras {keras.version()} "
            f"cannot open it: {error}"
        ) from error


def _written_by(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (KeyError, ValueError, zipfile.BadZipFile):
        return "of an unknown version"
