"""Case 13: a saved model opens elsewhere with stock Keras, and one that cannot be opened says why.

Sources: tensorflow/tensorflow#64685; keras-team/keras#21046, #19899, #19330, #19898.
"""

import json
import platform
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cnn.config.run import RuntimeConfig
from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError
from cnn.model_io import exports
from cnn.tables import parquet
from cnn.train import networks as models
from cnn.train import recipes
from tests import ROOT

TINY = recipes.FAST.model_copy(
    update={
        "precision": "float32",
        "conv1_filters": 2,
        "conv2_filters": 2,
        "dense1_units": 4,
        "steps": 20,
        "log_every": 20,
    }
)


@pytest.fixture(scope="module")
def saved(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained model."""
    folder = tmp_path_factory.mktemp("model")
    exports.save_model(folder, models.build(TINY, digits.image_shape, 10, seed=0), digits)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def rewrite(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change one JSON file inside a model's archive."""
    path = folder / "model.keras"
    with zipfile.ZipFile(path) as archive:
        parts = {item: archive.read(item) for item in archive.namelist()}
    parts[name] = json.dumps(change(json.loads(parts[name]))).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for item, content in parts.items():
            archive.writestr(item, content)


def refusal(folder: Path) -> str:
    """Return what is said when the model is opened: one message, and nothing beside it."""
    with warnings.catch_warnings(record=True) as shown, pytest.raises(ArtifactError) as caught:
        warnings.simplefilter("always")
        exports.load_model(folder)
    assert shown == []
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def test_a_model_says_what_it_needs(saved: Path, digits: Dataset) -> None:
    """Versions, input, scaling and classes stand in a file beside it that any program reads."""
    sidecar = json.loads((saved / "model.json").read_text())
    assert sidecar["versions"] == {
        "python": platform.python_version(),
        **{name: version(name) for name in ("tensorflow", "keras", "numpy")},
    }
    assert sidecar["input"]["shape"] == list(digits.image_shape) == [28, 28, 1]
    assert "0..255" in sidecar["input"]["pixels"]
    assert "scales" in sidecar["input"]["pixels"]
    assert sidecar["class_names"] == [str(digit) for digit in range(10)]


def test_a_model_opens_again(saved: Path) -> None:
    """What is refused below is refused for what was changed."""
    assert exports.load_model(saved).count_params() > 0


def _newer_layer(config: dict[str, Any]) -> dict[str, Any]:
    config["config"]["layers"][2]["config"]["sparse_kernel"] = True
    return config


def _other_class(config: dict[str, Any]) -> dict[str, Any]:
    config["config"]["layers"][2]["class_name"] = "Conv2DWithEverything"
    return config


def _older_module(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "module": "keras.src.engine.sequential"}


@pytest.mark.parametrize("written_by", ["99.0", "2.15.0", "3.0.0"])
@pytest.mark.parametrize("change", [_newer_layer, _other_class, _older_module])
def test_a_model_of_another_keras_is_refused_with_both_versions(
    folder: Path, written_by: str, change: Callable[[Any], Any]
) -> None:
    """Whether the file is newer or older, the message names its Keras and this one."""
    rewrite(folder, "metadata.json", lambda metadata: {**metadata, "keras_version": written_by})
    rewrite(folder, "config.json", change)
    message = refusal(folder)
    assert f"written by Keras {written_by}, and Keras {version('keras')} cannot open it" in message
    assert str(folder / "model.keras") in message


def test_a_model_of_a_newer_keras_that_says_no_more_opens(folder: Path) -> None:
    """A version alone is no reason to refuse what can be read."""
    rewrite(folder, "metadata.json", lambda metadata: {**metadata, "keras_version": "99.0"})
    assert exports.load_model(folder).count_params() > 0


def _layer(**layer: Any) -> Callable[[Any], Any]:
    def change(config: dict[str, Any]) -> dict[str, Any]:
        whole = {"module": "keras.layers", "class_name": "Dense", "registered_name": None}
        config["config"]["layers"].append({"config": {"name": "extra"}, **whole, **layer})
        return config

    return change


def _top(**names: Any) -> Callable[[Any], Any]:
    return lambda config: {**config, **names}


def _initializer(**names: Any) -> Callable[[Any], Any]:
    def change(config: dict[str, Any]) -> dict[str, Any]:
        config["config"]["layers"][2]["config"]["kernel_initializer"] = names
        return config

    return change


UNSAFE = {
    "another module": _top(module="os", class_name="system", config="touch planted"),
    "another module below": _layer(module="os", class_name="system", config="touch planted"),
    "a submodule of keras": _layer(module="keras.src.utils.file_utils", class_name="get_file"),
    "a function": _initializer(
        module="builtins", class_name="function", config="exec", registered_name="function"
    ),
    "a class of its own": _layer(module=None, class_name="Mine", registered_name="mine>Mine"),
    "a registered name": _layer(registered_name="mine>Dense"),
    "a layer that reads a file": _layer(class_name="StringLookup", config={"vocabulary": "/x"}),
    "a layer with a saved model": _layer(class_name="TFSMLayer", config={"filepath": "/x"}),
    "a layer with a pickle": _layer(class_name="TorchModuleWrapper", config={"module": "x"}),
    "a lambda": _initializer(class_name="__lambda__", config={"value": "x"}),
    "names that are no text": _layer(module=["os"], class_name={"system": 1}),
    "no name": _initializer(registered_name="x"),
}


@pytest.mark.parametrize("what", UNSAFE)
def test_a_model_of_foreign_parts_is_refused_before_keras_sees_it(
    folder: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name in a config but those of our own stock layers is looked up anywhere."""
    rewrite(folder, "config.json", UNSAFE[what])
    monkeypatch.setattr(exports, "_opened", lambda path: pytest.fail("Keras was asked"))
    monkeypatch.chdir(folder)
    assert "its config names" in refusal(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.keras"]


def test_marshalled_code_is_not_run(folder: Path, tmp_path: Path) -> None:
    """The code in a Lambda layer works where safety is switched off, and never here."""
    import keras

    planted = tmp_path / "planted"
    touch = eval(f"lambda x: (open({str(planted)!r}, 'w').close(), x)[1]")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(touch)])
    planted.unlink()  # building the model called the function
    model.save(folder / "model.keras")
    assert "Lambda" in refusal(folder)
    assert not planted.exists()
    keras.saving.load_model(folder / "model.keras", safe_mode=False)
    assert planted.exists()


def test_keras_is_asked_in_its_safe_mode(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second lock holds where the first one would not."""
    import keras

    asked: dict[str, Any] = {}

    def load(path: Path, **options: Any) -> None:
        asked.update(options)

    monkeypatch.setattr(keras.saving, "load_model", load)
    exports.load_model(folder)
    assert asked == {"compile": False, "safe_mode": True}


def _external(file: Any, secret: Path) -> None:
    import h5py

    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = h5py.ExternalLink(str(secret), "w")


def _soft(file: Any, secret: Path) -> None:
    import h5py

    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = h5py.SoftLink("/layers/dense/vars/1")


def _stored_outside(file: Any, secret: Path) -> None:
    shape = file["layers/dense/vars/0"].shape
    del file["layers/dense/vars/0"]
    n_bytes = 4 * int(np.prod(shape))
    place = [(str(secret), 0, n_bytes)]
    file["layers/dense/vars"].create_dataset("0", shape, np.float32, external=place)


def _text(file: Any, secret: Path) -> None:
    del file["layers/dense/vars/1"]
    file["layers/dense/vars/1"] = ["a", "b"]


@pytest.mark.parametrize("change", [_external, _soft, _stored_outside, _text])
def test_weights_that_stand_elsewhere_are_refused(
    folder: Path, tmp_path: Path, change: Callable[[Any, Path], None]
) -> None:
    """No file of the reader's machine is read as weights."""
    import h5py

    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 10_000)
    path = folder / "model.keras"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "parts")
    with h5py.File(tmp_path / "parts" / "model.weights.h5", "a") as file:
        change(file, secret)
    with zipfile.ZipFile(path, "w") as archive:
        for part in sorted((tmp_path / "parts").iterdir()):
            archive.write(part, part.name)
    assert "model.weights.h5 is damaged" in refusal(folder)


@pytest.mark.slow
def test_stock_keras_reproduces_the_stored_probabilities(digits: Dataset, tmp_path: Path) -> None:
    """In an empty folder, in a fresh interpreter that cannot import the product."""
    from cnn.evaluate import evaluation
    from cnn.train import device, fit

    device.prepare(RuntimeConfig())
    trained = fit.fit(digits, TINY, seed=0)
    exports.save_model(tmp_path, trained.model, digits)
    measured = evaluation.evaluate(exports.load_model(tmp_path), digits, 15)
    parquet.write_rows(
        tmp_path / "predictions.parquet", "predictions", measured.tables["predictions"]
    )
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
