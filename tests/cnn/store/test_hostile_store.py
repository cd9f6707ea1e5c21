"""What lies in a store may be planted: nothing leads out of it, and nothing stops the others."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cnn.errors import ArtifactError, ConfigError
from cnn.runs import index, records
from cnn.store.keys import Key
from cnn.store.store import Store
from cnn.tables import parquet, schemas
from tests.cnn.runs.test_runs import indexed, publish, record
from tests.cnn.store.test_later_versions import write_sealed

KEY = Key("model", {"step": "train_model"})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one artifact."""
    store = Store(tmp_path / "artifacts")

    def produce(folder: Path) -> dict[str, Any]:
        (folder / "model.txt").write_text("weights")
        return {}

    store.publish(KEY, (), produce)
    return store


def folder_of(store: Store) -> Path:
    return store.root / "store" / KEY.kind / KEY.digest


def test_an_artifact_whose_folder_is_a_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    """The same files elsewhere may change without the store."""
    manifest = store.find(KEY).manifest
    assert manifest
    folder_of(store).rename(tmp_path / "elsewhere")
    folder_of(store).symlink_to(tmp_path / "elsewhere")
    assert "is a link, which is not followed" in store.find(KEY).problem
    with pytest.raises(ArtifactError, match="is a link"):
        store.open(manifest.ref)
    store.quarantine(KEY, "is a link")
    assert (tmp_path / "elsewhere" / "model.txt").read_text() == "weights"


def test_a_manifest_that_is_a_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    """Nor one that is a pipe, at which a reader would wait for ever."""
    path = folder_of(store) / "manifest.json"
    path.rename(tmp_path / "manifest.json")
    path.symlink_to(tmp_path / "manifest.json")
    assert store.find(KEY).problem == "manifest.json is missing or damaged"
    path.unlink()
    os.mkfifo(path)
    assert store.find(KEY).problem == "manifest.json is missing or damaged"


def test_a_file_that_cannot_be_read_is_a_problem_not_a_crash(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector under an artifact: it is named, and the step can run again."""
    opened = Path.open

    def bad(path: Path, *how: Any, **more: Any) -> Any:
        if path.name == "model.txt":
            raise OSError(5, os.strerror(5), str(path))
        return opened(path, *how, **more)

    monkeypatch.setattr(Path, "open", bad)
    assert store.find(KEY).problem == "model.txt cannot be read (Input/output error)"


def test_a_run_is_called_as_its_folder_is(tmp_path: Path) -> None:
    """Neither a copy, a renamed folder nor a planted name leads to another folder."""
    runs_folder = tmp_path / "runs"
    item = publish(runs_folder, record())
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("../outside", str(outside), "other"):
        path = runs_folder / item.run / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"run": name}))
        found, folder = records.find(runs_folder, "latest")
        assert (found.run, folder) == (item.run, runs_folder / item.run)
        with pytest.raises(ConfigError, match="no run of that name"):
            records.find(runs_folder, name)
    (runs_folder / item.run).rename(runs_folder / "the good one")
    assert records.find(runs_folder, "the good one")[1] == runs_folder / "the good one"
    index.rebuild(runs_folder)
    assert [row["run"] for row in indexed(runs_folder)] == ["the good one"]


def test_a_run_whose_folder_is_a_link_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A link out of the store is named in a warning and not followed."""
    item = publish(tmp_path / "runs", record())
    (tmp_path / "runs" / item.run).rename(tmp_path / "elsewhere")
    (tmp_path / "runs" / item.run).symlink_to(tmp_path / "elsewhere")
    assert list(records.read_all(tmp_path / "runs")) == []
    assert "is a link, which is not followed" in caplog.text


PLANTED: dict[str, dict[str, Any]] = {
    "a moment without a zone": {"created": "2026-03-01T12:30:45"},
    "a moment before all others": {"created": "0001-01-01T00:00:00+14:00"},
    "a seed beyond every column": {"seed": 2**63},
    "a seed beyond every number": {"seed": 10**400},
    "an accuracy beyond every number": {"headline": {"test_accuracy": 10**400}},
    "half a letter": {"data": "\ud800"},
    "half a letter inside": {"config": {"a": ["\ud800"]}},
    "no number": {"seconds": float("nan")},
    "steps of another kind": {"steps": [{"step": "x", "state": "perhaps"}]},
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_record_costs_only_itself(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The other run is listed, found and in the index; one line says what is wrong."""
    bad, good = publish(tmp_path, record("bad", seconds=-60)), publish(tmp_path, record("good"))
    path = tmp_path / bad.run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | PLANTED[what]))
    caplog.clear()
    assert [item.run for item in records.read_all(tmp_path)] == [good.run]
    index.rebuild(tmp_path)
    assert [row["run"] for row in indexed(tmp_path)] == [good.run]
    assert all(str(path) in item.getMessage() for item in caplog.records)
    assert "\n" not in caplog.records[0].getMessage()


def test_words_where_a_number_belongs_are_no_number(tmp_path: Path) -> None:
    """A headline may hold text; a column of numbers stays one."""
    item = publish(tmp_path, record(headline={"test_accuracy": "high", "validation_accuracy": 1}))
    (row,) = indexed(tmp_path)
    assert (row["run"], row["test_accuracy"], row["validation_accuracy"]) == (item.run, None, 1.0)
    assert parquet.read(tmp_path / "index.parquet").schema.equals(schemas.SCHEMAS["runs"])


def test_a_folder_of_no_text_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A name that is no UTF-8 cannot stand in a table; the other runs go on."""
    item = publish(tmp_path, record("bad"))
    good = publish(tmp_path, record("good"))
    (tmp_path / item.run).rename(tmp_path / "\udcff-bad")
    index.rebuild(tmp_path)
    assert [row["run"] for row in indexed(tmp_path)] == [good.run]
    assert "left out" in caplog.text


@pytest.mark.parametrize("part", ["settings", "inputs", "code", "tables", "versions"])
@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_a_key_of_odd_parts_is_a_damaged_manifest(store: Store, part: str, value: Any) -> None:
    """Explaining why a step runs compares with whatever lies in the store."""
    path = folder_of(store) / "manifest.json"
    stored = json.loads(path.read_text())
    write_sealed(path, stored | {"components": {**KEY.components, part: {"a": 1}}})
    assert len(list(store.manifests("model"))) == 1
    write_sealed(path, stored | {"components": {**KEY.components, part: value}})
    assert list(store.manifests("model")) == []
    assert store.find(KEY).problem == "manifest.json is missing or damaged"
