"""Archives with foreign layers, links or bombs are refused before Keras opens them."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cnn.model_io import exports
from tests.cnn.model_io.conftest import Refusal, Rewrite

Config = dict[str, Any]


def _changed(change: Callable[[Config], Any]) -> Callable[[bytes], bytes]:
    """Return the change of a file's bytes that changes its JSON object in place."""

    def apply(content: bytes) -> bytes:
        config = json.loads(content)
        change(config)
        return json.dumps(config).encode()

    return apply


def _top(**names: Any) -> Callable[[Config], Any]:
    return lambda config: config.update(names)


def _layer(**names: Any) -> Callable[[Config], Any]:
    whole = {"module": "keras.layers", "class_name": "Dense", "registered_name": None}
    layer = {"config": {"name": "extra"}, **whole, **names}
    return lambda config: config["config"]["layers"].append(layer)


def _initializer(**names: Any) -> Callable[[Config], Any]:
    return lambda config: config["config"]["layers"][2]["config"].update(kernel_initializer=names)


UNSAFE = {
    "another module": _top(module="os", class_name="system", config="touch planted"),
    "another module in a layer": _layer(module="os", class_name="system", config="touch planted"),
    "a submodule of keras": _layer(module="keras.src.utils.file_utils", class_name="get_file"),
    "a function": _initializer(
        module="builtins", class_name="function", config="exec", registered_name="function"
    ),
    "a custom class": _layer(module=None, class_name="Mine", registered_name="mine>Mine"),
    "a registered name": _layer(registered_name="mine>Dense"),
    "a layer that reads a file": _layer(class_name="StringLookup", config={"vocabulary": "/x"}),
    "a layer with a saved model": _layer(class_name="TFSMLayer", config={"filepath": "/x"}),
    "a layer with a pickle": _layer(class_name="TorchModuleWrapper", config={"module": "x"}),
    "a lambda": _initializer(class_name="__lambda__", config={"value": "x"}),
    "names that are not text": _layer(module=["os"], class_name={"system": 1}),
    "no name": _initializer(registered_name="x"),
}


@pytest.mark.parametrize("what", UNSAFE)
def test_foreign_parts_are_refused_before_keras_sees_them(
    folder: Path, rewrite: Rewrite, refusal: Refusal, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the names of our own stock layers are ever looked up."""
    rewrite("config.json", _changed(UNSAFE[what]))
    monkeypatch.setattr(exports, "_opened", lambda path: pytest.fail("Keras opened it"))
    monkeypatch.chdir(folder)
    assert "its config names" in refusal()
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.keras"]


def test_marshalled_code_is_not_run(folder: Path, tmp_path: Path, refusal: Refusal) -> None:
    """The code in a Lambda layer runs if safe mode is off, but never here."""
    import keras

    planted = tmp_path / "planted"
    touch = eval(f"lambda x: (open({str(planted)!r}, 'w').close(), x)[1]")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(touch)])
    planted.unlink()  # building the model called the function
    model.save(folder / "model.keras")
    assert "Lambda" in refusal()
    assert not planted.exists()
    keras.saving.load_model(folder / "model.keras", safe_mode=False)
    assert planted.exists()


@pytest.mark.parametrize("place", [("units", 6), ("filters", 2), ("kernel_size", 2)])
@pytest.mark.parametrize("build", [False, True])
def test_a_config_that_asks_for_too_much_takes_no_memory(
    rewrite: Rewrite, refusal: Refusal, place: tuple[str, int], build: bool
) -> None:
    """A terabyte of weights in a config of six kilobytes is refused before Keras allocates it."""
    name, index = place

    def enlarge(config: Config) -> None:
        layer = config["config"]["layers"][index]
        layer["config"][name] = [2**20, 2**20] if name == "kernel_size" else 2**40
        if build:
            layer["build_config"]["input_shape"][-1] = 2**40

    rewrite("config.json", _changed(enlarge))
    assert "its config asks for kernels" in refusal()


def _external(group: Any, secret: Path) -> None:
    group["0"] = h5py.ExternalLink(str(secret), "w")


def _soft(group: Any, secret: Path) -> None:
    group["0"] = h5py.SoftLink("/layers/dense/vars/1")


def _stored_outside(group: Any, secret: Path) -> None:
    group.create_dataset("0", (32, 4), np.float32, external=[(str(secret), 0, 4 * 32 * 4)])


def _text(group: Any, secret: Path) -> None:
    group["0"] = ["a", "b"]


@pytest.mark.parametrize("replacement", [_external, _soft, _stored_outside, _text])
def test_weights_from_elsewhere_are_refused(
    rewrite: Rewrite, refusal: Refusal, tmp_path: Path, replacement: Callable[[Any, Path], None]
) -> None:
    """No other file of this machine is read as weights."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 10_000)

    def change(content: bytes) -> bytes:
        stream = io.BytesIO(content)
        with h5py.File(stream, "r+") as file:
            assert file["layers/dense/vars/0"].shape == (32, 4)
            del file["layers/dense/vars/0"]
            replacement(file["layers/dense/vars"], secret)
        return stream.getvalue()

    rewrite("model.weights.h5", change)
    assert "model.weights.h5 is damaged" in refusal()
