"""report.html lists the files that the run's folder really has."""

import re
from pathlib import Path

import pytest

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


@pytest.fixture
def artifacts(tmp_path: Path) -> dict[Kind, Path]:
    """Folders of artifacts with empty files."""
    for kind, names in FILES.items():
        (tmp_path / kind).mkdir()
        for name in names:
            (tmp_path / kind / name).touch()
    return {kind: tmp_path / kind for kind in FILES}


def test_exactly_the_files_of_the_folder_are_listed(
    artifacts: dict[Kind, Path], tmp_path: Path
) -> None:
    """As `runs.publish` copies them, for any layers."""
    text = page.compose(RECORD, "", artifacts)
    _, folder = folders.publish(tmp_path / "runs", RECORD, artifacts, text)
    present = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    listed = re.findall(r'<a href="([^"]*)"', text)
    assert sorted(listed) == sorted(present - {"report.html"})


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("arrays/filters-my-layer.npy", "kernels of my-layer, (filters, height, width, channels)"),
        ("arrays/projections-pool.npy", "projections of pool&#39;s patches"),
        ("figures/health-conv2.png", "the dead, the duplicates and the specialists of conv2"),
        ("figures/samples.png", "16 training images with their labels"),
        ("tables/history.parquet", "loss, accuracy and learning rate while training"),
    ],
)
def test_each_file_is_said_what_it_is(artifacts: dict[Kind, Path], path: str, what: str) -> None:
    """By its kind, with the layer's name."""
    text = page.compose(RECORD, "", artifacts)
    assert f'<a href="{path}">{path}</a></th><td>{what}' in text
