"""Publishing a run: its folder is complete and indexed, or there is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from cnn.errors import ArtifactError, StoreUnwritableError
from cnn.runs import folders, index, records
from cnn.store.refs import Kind
from tests.cnn.runs.published import hidden, indexed, names, publish, record


def test_a_run_folder_has_copies_of_all_artifacts_but_the_data_set(tmp_path: Path) -> None:
    """Figures, tables, arrays and the model are in subfolders, beside record and report."""
    artifacts: dict[Kind, Path] = {}
    for kind, files in {
        "dataset": ("train-images.npy", "dataset.json"),
        "model": ("model.keras", "model.json", "history.parquet", "manifest.json"),
        "report": ("filters-conv1.png", "body.html"),
        "filters": ("filters.parquet", "conv1.npy"),
    }.items():
        artifacts[kind] = tmp_path / "store" / kind / "key"
        artifacts[kind].mkdir(parents=True)
        for name in files:
            (artifacts[kind] / name).write_text(f"{kind} {name}")
    item, folder = folders.publish(tmp_path / "runs", record(), artifacts, "<h1>ü</h1>")
    assert folder == tmp_path / "runs" / item.run
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "run.json",
        "report.html",
        "figures/filters-conv1.png",
        "tables/history.parquet",
        "tables/filters.parquet",
        "arrays/conv1.npy",
        "model/model.keras",
        "model/model.json",
    }
    assert (folder / "model" / "model.keras").read_text() == "model model.keras"
    assert (folder / "report.html").read_text(encoding="utf-8") == "<h1>ü</h1>"
    assert records.read(folder) == item == record()
    assert hidden(tmp_path / "runs") == []


def test_nan_and_infinity_are_null_in_run_json_and_in_the_index(tmp_path: Path) -> None:
    """Every JSON parser can read the record."""
    headline = {"test_accuracy": float("nan"), "validation_accuracy": float("inf")}
    item = publish(tmp_path, record(headline=headline))

    def refuse(token: str) -> None:
        raise AssertionError(token)

    text = (tmp_path / item.run / "run.json").read_text()
    assert json.loads(text, parse_constant=refuse)["headline"] == dict.fromkeys(headline)
    assert indexed(tmp_path)[0]["test_accuracy"] is None


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    """Runs of one name in the same second stay apart in run.json and in the index."""
    runs = [publish(tmp_path, record()).run for _ in range(3)]
    base = record().run
    assert runs == [base, f"{base}-2", f"{base}-3"]
    assert names(tmp_path) == runs
    assert [records.read(tmp_path / name).run for name in runs] == runs


def test_a_run_whose_artifact_vanishes_is_not_published(tmp_path: Path) -> None:
    """Neither a folder nor a row of the index is left."""
    publish(tmp_path, record())
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ArtifactError, match="gone vanished while the run's folder was being wri"):
        folders.publish(tmp_path, record("other"), {"model": tmp_path / "gone"})
    assert sorted(tmp_path.iterdir()) == before
    assert len(indexed(tmp_path)) == 1


def test_a_run_that_cannot_be_indexed_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full at that moment leaves neither the folder nor a new index."""
    publish(tmp_path, record())
    before = indexed(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context, pytest.raises(StoreUnwritableError, match="are free"):
        context.setattr(index, "rebuild", full)
        publish(tmp_path, record(seconds=1))
    assert [item.run for item in records.read_all(tmp_path)] == [record().run]
    assert indexed(tmp_path) == before
    assert hidden(tmp_path) == []
