"""A saved model opens elsewhere with stock Keras, and one that cannot be opened says why.

Sources: tensorflow/tensorflow#64685; keras-team/keras#21046, #19899, #19330, #19898.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cnn.config.training import Training
from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError
from cnn.evaluate import evaluation
from cnn.model_io import exports
from cnn.train import device, fit, networks, recipes
from tests import ROOT
from tests.cnn.data import inputs
from tests.cnn.model_io.conftest import Refusal, Rewrite


def test_the_sidecar_says_what_a_model_needs(saved: Path, digits: Dataset) -> None:
    """Versions, input, scaling and class names are in a JSON file that any program reads."""
    sidecar = json.loads((saved / "model.json").read_text())
    assert sidecar["versions"] == {
        "python": platform.python_version(),
        **{name: version(name) for name in ("tensorflow", "keras", "numpy")},
    }
    assert sidecar["input"]["shape"] == list(digits.image_shape) == [28, 28, 1]
    assert "0..255" in sidecar["input"]["pixels"]
    assert "scales" in sidecar["input"]["pixels"]
    assert sidecar["class_names"] == [str(digit) for digit in range(10)]


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize(("prefix", "transposed"), [("emnist-digits-", True), ("own-", False)])
def test_the_sidecar_says_whether_training_images_were_transposed(
    tmp_path: Path, prefix: str, transposed: bool
) -> None:
    """Whoever uses the model on other scans learns how to orient them."""
    dataset = inputs.load(inputs.write_set(tmp_path, inputs.good_set(), prefix))
    settings = recipes.FAST.model_copy(update={"dense1_units": 4})
    model = networks.build(settings, dataset.image_shape, len(dataset.class_names), seed=0)
    exports.save_model(tmp_path, model, dataset)
    sidecar = json.loads((tmp_path / exports.SIDECAR_NAME).read_text())
    assert sidecar["trained_on"]["transposed"] is transposed
    assert sidecar["input"]["shape"][-3:] == [28, 28, 1]


def _changed(**values: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), **values}).encode()


def _third_layer(content: bytes) -> tuple[Any, Any]:
    config = json.loads(content)
    return config, config["config"]["layers"][2]


def _newer_layer(content: bytes) -> bytes:
    config, layer = _third_layer(content)
    layer["config"]["sparse_kernel"] = True
    return json.dumps(config).encode()


def _other_class(content: bytes) -> bytes:
    config, layer = _third_layer(content)
    layer["class_name"] = "Conv2DWithEverything"
    return json.dumps(config).encode()


@pytest.mark.parametrize("change", [_other_class, lambda content: b"{}"], ids=["layer", "empty"])
def test_the_kinds_of_layers_are_known_without_keras_or_refused(
    folder: Path, rewrite: Rewrite, change: Callable[[bytes], bytes]
) -> None:
    """`filterscope mine` names the layers there are before it opens the model."""
    assert exports.layer_kinds(folder)["pool"] == "MaxPooling2D"
    rewrite("config.json", change)
    with pytest.raises(ArtifactError, match=r"model\.keras: no model of filterscope"):
        exports.layer_kinds(folder)


@pytest.mark.parametrize(
    ("keras_version", "change"),
    [
        ("99.0", _newer_layer),
        ("3.0.0", _other_class),
        ("2.15.0", _changed(module="keras.src.engine.sequential")),
    ],
    ids=["newer layer", "other class", "older module"],
)
def test_a_model_of_another_keras_is_refused_with_both_versions(
    folder: Path,
    rewrite: Rewrite,
    refusal: Refusal,
    keras_version: str,
    change: Callable[[bytes], bytes],
) -> None:
    """The same model opens if only its version is another: that alone is no reason to refuse."""
    rewrite("metadata.json", _changed(keras_version=keras_version))
    assert exports.load_model(folder).count_params() > 0
    rewrite("config.json", change)
    message = refusal()
    here = version("keras")
    assert f"written by Keras {keras_version}, and Keras {here} cannot open it" in message
    assert str(folder / "model.keras") in message


def test_keras_opens_models_in_its_safe_mode(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second defence, should our own checks miss something."""
    import keras

    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(keras.saving, "load_model", lambda path, **options: calls.append(options))
    exports.load_model(saved)
    assert calls == [{"compile": False, "safe_mode": True}]


@pytest.mark.slow
def test_stock_keras_reproduces_the_stored_probabilities(
    digits: Dataset, tiny: Training, prepared: device.Device, tmp_path: Path
) -> None:
    """In an empty folder, in a fresh interpreter that cannot import the product."""
    trained = fit.fit(digits, tiny, seed=0)
    exports.save_model(tmp_path, trained.model, digits)
    measured = evaluation.evaluate(exports.load_model(tmp_path), digits, 15)
    evaluation.write(tmp_path, measured)
    stored = pd.read_parquet(tmp_path / "predictions.parquet")
    stored = stored[stored["split"] == "test"].head(10)
    np.save(tmp_path / "images.npy", digits.splits["test"].images[:10])
    assert stored["image_id"].tolist() == digits.splits["test"].ids[:10].tolist()
    script = (
        f"import sys; sys.path = [p for p in sys.path if p != {str(ROOT)!r}]\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        "import importlib.util\n"
        "assert not any(map(importlib.util.find_spec, ('cnn', 'tasks', 'flows')))\n"
        "import keras, numpy as np\n"
        "model = keras.models.load_model('model.keras')\n"
        "np.save('out.npy', model.predict(np.load('images.npy'), verbose=0))\n"
    )
    subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, check=True)
    fresh = np.load(tmp_path / "out.npy")
    assert np.abs(fresh - np.stack(list(stored["probabilities"]))).max() < 1e-4
