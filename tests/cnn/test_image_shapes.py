"""Images of other sizes, channels and origins than MNIST's, from the file to the figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn.config.run import RuntimeConfig
from cnn.report.pages import body
from cnn.train import device
from tests.cnn.data import inputs
from tests.cnn.report.conftest import train_briefly, write_artifacts

SETS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "rgb idx": ({}, (28, 28, 3)),
    "32 x 20 idx": ({}, (32, 20, 1)),
    "gray images": ({}, (28, 28, 1)),
    "colour images": ({"channels": 3, "image_size": (24, 30)}, (24, 30, 3)),
}


def put_set(folder: Path, name: str) -> Path:
    if name.endswith("images"):
        names = ("Übergröße – eine lange Klasse", "$x_1$ <b>", "日本語")
        return inputs.class_folders(folder, 14, names)
    arrays = inputs.good_set(size=(32, 20) if name == "32 x 20 idx" else (28, 28))
    if name == "rgb idx":
        arrays = {n: np.stack([a] * 3, -1) if "images" in n else a for n, a in arrays.items()}
    return inputs.write_set(folder, arrays)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_every_step_takes_the_shape_from_the_data(tmp_path: Path, name: str) -> None:
    """Training, evaluation, filters, patches and all figures."""
    options, shape = SETS[name]
    device.prepare(RuntimeConfig())
    dataset = inputs.load(put_set(tmp_path / "data", name), **options)
    assert dataset.image_shape == shape
    fitted = train_briefly(dataset, steps=2, log_every=1)
    assert fitted.model.input_shape == (None, *shape)
    report = body.gather(write_artifacts(tmp_path, dataset, fitted))
    assert report.patches["conv1"].shape[-1] == shape[-1]
    page = tmp_path / "page"
    page.mkdir()
    body.write(page, report, n_mistakes=24)
    assert len(list(page.glob("*.png"))) == 13
