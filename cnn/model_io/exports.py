"""Save trained models as files that stock Keras opens, and load them again."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError
from cnn.io import strict_json
from cnn.model_io import archives
from cnn.model_io.keras_types import Model

MODEL_NAME, SIDECAR_NAME = "model.keras", "model.json"
_LONGEST_REASON = 300  # characters


def save_model(folder: Path, model: Model, dataset: Dataset) -> None:
    """Write model.keras, made of stock layers only, and model.json, which tells how to use it."""
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
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("tensorflow", "keras", "numpy")},
        },
    }
    (folder / SIDECAR_NAME).write_text(json.dumps(sidecar, indent=2), encoding="utf-8")


def class_names(folder: Path) -> tuple[str, ...]:
    """Return a model's class names. Raises ArtifactError if model.json cannot be read."""
    path = folder / SIDECAR_NAME
    try:
        return tuple(strict_json.read(path)["class_names"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error})") from None


def layer_kinds(folder: Path) -> dict[str, str]:
    """Return the class of each layer of a model, by layer name, without TensorFlow.

    Raises ArtifactError if the archive is incomplete or has layers that are not stock.
    """
    archive = archives.read(folder / MODEL_NAME)
    try:
        archives.refuse_foreign(archive.config)
        layers = archive.config["config"]["layers"]
        return {layer["config"]["name"]: layer["class_name"] for layer in layers}
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{archive.path}: no model of filterscope ({error})") from None


def load_model(folder: Path) -> Model:
    """Return the keras.Model in an artifact's folder, opened in Keras's safe mode.

    Raises ArtifactError if the archive is incomplete, names anything but stock layers, or
    cannot be opened by this Keras; the message then gives both versions of Keras.
    """
    archive = archives.read(folder / MODEL_NAME)
    try:
        archives.refuse_foreign(archive.config)
        archive.refuse_odd_weights()
        model: Model = _opened(archive.path)
        return model
    except ArtifactError:
        raise
    except Exception as error:  # bad content makes Keras raise anything
        raise ArtifactError(
            f"{archive.path}: written by Keras {archive.keras_version}, and Keras "
            f"{version('keras')} cannot open it: {_in_a_line(error)}; open it with the Keras that "
            "wrote it, or train the model again"
        ) from None


def _opened(path: Path) -> Any:
    import keras

    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _in_a_line(error: Exception) -> str:
    """Return the last part of an error's message; Keras puts the whole config before it."""
    text = " ".join(str(error).split()) or type(error).__name__
    *_, last = text.split("Exception encountered: ")
    return last if len(last) <= _LONGEST_REASON else f"{last[:_LONGEST_REASON]}..."
