"""Predictions of a saved model in a fresh process, which opens it as a consumer would."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.errors import ArtifactError, FilterscopeError
from cnn.evaluate import predictions
from cnn.model_io import exports
from cnn.model_io.keras_types import Model

_TIMEOUT_SECONDS = 900.0  # a model that takes longer is useless
_N_TIMED = 50  # predictions


@dataclass(frozen=True)
class IsolatedPredictions:
    """Probabilities of n images, (n, classes), and the median time for one image, in ms."""

    probabilities: NDArray[np.float64]
    milliseconds: float


def predict(model: Path, images: NDArray[Any]) -> IsolatedPredictions:
    """Return the predictions of the model in a folder, computed in a fresh process.

    images: (n, h, w, c), pixels 0..255. Raises ArtifactError with the reason if the model does
    not open or does not predict.
    """
    with tempfile.TemporaryDirectory(prefix="filterscope-") as name:
        folder = Path(name)
        np.save(folder / "images.npy", images, allow_pickle=False)
        command = [sys.executable, "-m", __name__, str(model), name]
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise ArtifactError(
                f"{model}: no predictions within {_TIMEOUT_SECONDS:.0f} s"
            ) from None
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit code {done.returncode}"
            raise ArtifactError(f"{model}: cannot predict in a fresh process: {reason}")
        timing = json.loads((folder / "timing.json").read_text(encoding="utf-8"))
        values = np.load(folder / "probabilities.npy", allow_pickle=False)
        return IsolatedPredictions(values, timing["milliseconds"])


def _predict_here(model_folder: Path, folder: Path) -> None:
    """Predict in this process: read images.npy, write probabilities.npy and timing.json."""
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    model = exports.load_model(model_folder)
    values, _ = predictions.probabilities(predictions.logits_of(model)(images))
    np.save(folder / "probabilities.npy", values, allow_pickle=False)
    timing = {"milliseconds": _milliseconds(model, images[:1])}
    (folder / "timing.json").write_text(json.dumps(timing), encoding="utf-8")


def _milliseconds(model: Model, image: NDArray[Any]) -> float:
    """Return the median time to predict one image in a compiled graph, in ms."""
    import tensorflow as tf

    forward = tf.function(lambda batch: model(batch, training=False))
    batch = tf.constant(image, tf.float32)
    times = []
    for _ in range(_N_TIMED + 1):
        started = time.perf_counter()
        forward(batch).numpy()
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times[1:]))  # the first call traces the graph


if __name__ == "__main__":
    try:
        _predict_here(Path(sys.argv[1]), Path(sys.argv[2]))
    except FilterscopeError as error:
        sys.exit(str(error))
