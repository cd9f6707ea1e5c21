"""report.html lists exactly the files of the run's folder, with a description of each."""

import re
from pathlib import Path

import pytest

from cnn.data import sources
from cnn.report.pages import page
from cnn.runs import folders
from cnn.store.refs import Kind
from tests.plain_record import PLAIN

ENVIRONMENT = dict.fromkeys(("python", "tensorflow", "keras", "numpy", "precision"), "3")
RECORD = PLAIN.model_copy(update={"environment": ENVIRONMENT})
FILES: dict[Kind, list[str]] = {
    "dataset": ["test-images.npy", "dataset.json"],
    "model": ["model.keras", "model.json", "training.json", "history.parquet"],
    "filters": ["filters.parquet", "filters-conv1.npy", "filters-my-layer.npy"],
    "patches": ["patches.parquet", "patches-pool.npy", "projections-pool.npy", "manifest.json"],
    "report": ["samples.png", "health-conv2.png", "body.html", "pictures.md"],
}
DESCRIPTIONS = {
    "arrays/filters-my-layer.npy": "kernels of my-layer, (filters, height, width, channels)",
    "arrays/projections-pool.npy": "projections of pool&#39;s patches",
    "figures/health-conv2.png": "dead, duplicate and specialist filters of conv2",
    "figures/samples.png": "16 training images with their labels",
    "tables/history.parquet": "loss, accuracy and learning rate during training",
}


def test_exactly_the_files_of_the_folder_are_listed(tmp_path: Path) -> None:
    """As `folders.publish` copies them, whatever the layers are called."""
    artifacts = {kind: tmp_path / kind for kind in FILES}
    for kind, names in FILES.items():
        artifacts[kind].mkdir()
        for name in names:
            (artifacts[kind] / name).touch()
    text = page.compose(RECORD, "", artifacts)
    _, folder = folders.publish(tmp_path / "runs", RECORD, artifacts, text)
    present = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    listed = re.findall(r'<a href="([^"]*)"', text)
    assert sorted(listed) == sorted(present - {"report.html"})
    for path, description in DESCRIPTIONS.items():
        assert f'<a href="{path}">{path}</a></th><td>{description}' in text


@pytest.mark.parametrize(
    ("note", "data"),
    [
        ("trained again for the paper", "digits"),
        (f"{sources.OUT_OF_REACH}, so digits", "digits in place of MNIST"),
    ],
)
def test_only_a_substitute_for_mnist_is_called_one(note: str, data: str) -> None:
    """A user's own note does not change the title."""
    record = PLAIN.model_copy(update={"note": note})
    assert page.title(record) == f"{data}, recipe fast, seed 0"
