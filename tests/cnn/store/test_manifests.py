"""Manifests and run records stay readable across versions; a changed one is refused.

`data/v1` was written by version 0.1.0 and never changes.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cnn.errors import ArtifactError
from cnn.runs import index, records
from cnn.runs.records import RunRecord
from cnn.store import manifests
from cnn.store.keys import Key
from cnn.store.manifests import FileEntry, Manifest
from cnn.store.store import Store

DATA = Path(__file__).parent / "data" / "v1"
RUN = "20260301T123045Z-digits-fast-seed0"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A copy of the store of version 0.1.0."""
    return Store(Path(shutil.copytree(DATA, tmp_path / "artifacts")))


@pytest.fixture
def path(store: Store) -> Path:
    """The manifest in it."""
    (path,) = store.root.glob("store/model/*/manifest.json")
    return path


def stored(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_bytes())
    return values


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Write a manifest with a valid seal over all of its fields."""
    unsealed = {name: value for name, value in values.items() if name != "seal"}
    seal = hashlib.sha256(json.dumps(unsealed, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**unsealed, "seal": seal}))


def test_an_artifact_of_the_first_version_is_found(store: Store, path: Path) -> None:
    """It verifies under its old key, with everything its manifest records."""
    (manifest,) = store.manifests("model")
    key = Key("model", manifest.components)
    assert key.digest == path.parent.name
    assert store.find(key).manifest == manifest
    assert store.open(manifest.ref) == path.parent
    assert manifest.components["settings"]["train.learning_rate"] == 0.003
    assert manifest.headline["accuracy"] == 0.96
    assert [file.path for file in manifest.files] == ["model.json"]


def test_a_run_of_the_first_version_is_listed(store: Store) -> None:
    """Its record is read whole, and the index can be built."""
    (record,) = records.read_all(store.runs)
    assert records.find(store.runs, "latest") == (record, store.runs / RUN)
    assert (record.run, record.headline["test_accuracy"], record.seconds) == (RUN, 0.98, 12.5)
    assert record.steps[0].ref in [manifest.ref for manifest in store.manifests("model")]
    index.rebuild(store.runs)


def test_new_fields_break_no_old_seal(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that adds fields with defaults reads what was sealed without them."""

    class LaterFile(FileEntry):
        mode: str = "plain"

    class LaterManifest(Manifest):
        licence: str = "unknown"
        files: tuple[LaterFile, ...]

    monkeypatch.setattr(manifests, "Manifest", LaterManifest)
    read = manifests.read(path.parent)
    assert isinstance(read, LaterManifest)
    assert (read.licence, read.files[0].mode) == ("unknown", "plain")
    (manifest,) = store.manifests("model")
    assert store.find(Key("model", manifest.components)).manifest == read


def test_fields_that_a_later_version_adds_are_ignored(store: Store, path: Path) -> None:
    """Unknown fields, also nested ones, are under the seal and change nothing else."""
    (before,) = store.manifests("model")
    values = stored(path)
    values["licence"] = {"name": "Apache-2.0"}
    values["files"][0]["mode"] = "plain"
    write_sealed(path, values)
    (after,) = store.manifests("model")
    assert after.model_dump(exclude={"seal"}) == before.model_dump(exclude={"seal"})
    assert store.find(Key("model", after.components)).manifest == after


def test_an_edit_of_an_unknown_field_is_detected(store: Store, path: Path) -> None:
    """The seal covers fields that this version does not know."""
    write_sealed(path, {**stored(path), "licence": "Apache-2.0"})
    path.write_text(path.read_text().replace("Apache-2.0", "MIT"))
    with pytest.raises(ArtifactError, match=r"manifest\.json was changed"):
        manifests.read(path.parent)


def test_layout_and_order_of_a_manifest_do_not_matter(store: Store, path: Path) -> None:
    """A reformatted manifest is still valid."""
    path.write_text(json.dumps(dict(reversed(stored(path).items())), indent=7))
    (manifest,) = store.manifests("model")
    assert manifest.seal == stored(path)["seal"]


def test_a_record_of_a_later_version_is_read(store: Store) -> None:
    """Unknown fields of a run and its steps are ignored; missing optional ones get defaults."""
    path = store.runs / RUN / "run.json"
    values = stored(path)
    before = records.read(path.parent)
    values["cost"] = 3
    values["steps"][0]["attempts"] = 2
    path.write_text(json.dumps(values))
    assert records.read(path.parent) == before
    optional = [name for name, field in RunRecord.model_fields.items() if not field.is_required()]
    path.write_text(json.dumps({k: v for k, v in values.items() if k not in optional}))
    assert records.read(path.parent).steps == before.steps


@pytest.mark.parametrize("part", ["settings", "inputs", "code", "tables", "versions"])
@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_a_manifest_whose_key_has_malformed_parts_is_damaged(
    store: Store, path: Path, part: str, value: Any
) -> None:
    """It is skipped when a plan compares a key with the artifacts in the store."""
    values = stored(path)
    write_sealed(path, values | {"components": {**values["components"], part: {"a": 1}}})
    assert len(list(store.manifests("model"))) == 1
    write_sealed(path, values | {"components": {**values["components"], part: value}})
    assert list(store.manifests("model")) == []
    with pytest.raises(ArtifactError, match=r"^manifest\.json is missing or damaged$"):
        manifests.read(path.parent)
