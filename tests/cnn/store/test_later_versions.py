"""What was written once stays readable: by later versions, and by this one what they write.

`data/v1` was written by version 0.1.0 and is never made anew.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cnn.errors import ArtifactError
from cnn.runs import index, records
from cnn.runs.records import RunRecord, StepOutcome
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
    read: dict[str, Any] = json.loads(path.read_bytes())
    return read


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Write a manifest as some version of the product does, sealed over all it has."""
    unsealed = {name: value for name, value in values.items() if name != "seal"}
    seal = hashlib.sha256(json.dumps(unsealed, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**unsealed, "seal": seal}))


def test_an_artifact_of_the_first_version_is_found(store: Store, path: Path) -> None:
    """Verified by its old key, with everything its manifest says."""
    (manifest,) = store.manifests("model")
    key = Key("model", manifest.components)
    assert key.digest == path.parent.name
    assert store.find(key).manifest == manifest
    assert store.open(manifest.ref) == path.parent
    assert manifest.components["settings"]["train.learning_rate"] == 0.003
    assert manifest.headline["accuracy"] == 0.96
    assert [file.path for file in manifest.files] == ["model.json"]


def test_a_run_of_the_first_version_is_listed(store: Store) -> None:
    """Its record is read whole, and stands in the index."""
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


def test_what_a_later_version_adds_is_passed_over(store: Store, path: Path) -> None:
    """Unknown fields, in the manifest and in its parts, are sealed and do not disturb."""
    (before,) = store.manifests("model")
    values = stored(path)
    values["licence"] = {"name": "Apache-2.0"}
    values["files"][0]["mode"] = "plain"
    write_sealed(path, values)
    (after,) = store.manifests("model")
    assert after.model_dump(exclude={"seal"}) == before.model_dump(exclude={"seal"})
    assert store.find(Key("model", after.components)).manifest == after


def test_an_unknown_field_that_was_edited_is_noticed(store: Store, path: Path) -> None:
    """The seal covers what this version does not know."""
    write_sealed(path, {**stored(path), "licence": "Apache-2.0"})
    path.write_text(path.read_text().replace("Apache-2.0", "MIT"))
    with pytest.raises(ArtifactError, match=r"manifest\.json was changed"):
        manifests.read(path.parent)


def test_layout_and_order_of_a_manifest_are_no_content(store: Store, path: Path) -> None:
    """A manifest that was formatted anew says what it said."""
    path.write_text(json.dumps(dict(reversed(stored(path).items())), indent=7))
    (manifest,) = store.manifests("model")
    assert manifest.seal == stored(path)["seal"]


def test_a_record_of_a_later_version_is_read(store: Store) -> None:
    """More fields in a run and in its steps are passed over; fewer optional ones are filled."""
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


def test_every_field_that_was_added_since_has_a_default() -> None:
    """What version 0.1.0 wrote has all that is required, of each model."""
    manifest = stored(next(DATA.glob("store/model/*/manifest.json")))
    record = stored(DATA / "runs" / RUN / "run.json")
    for model, values in (
        (Manifest, manifest),
        (FileEntry, manifest["files"][0]),
        (RunRecord, record),
        (StepOutcome, record["steps"][0]),
    ):
        required = {name for name, field in model.model_fields.items() if field.is_required()}
        assert required <= set(values)
