"""Manifests and run records with arbitrary content are used as intended or refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn.errors import ArtifactError, ConfigError
from cnn.pipeline import planning
from cnn.pipeline.steps import STEPS
from cnn.runs import folders, index, records
from cnn.runs.records import StepOutcome
from cnn.store import keys
from cnn.store.keys import Key
from cnn.store.manifests import Headline
from cnn.store.refs import Ref
from cnn.store.store import Store
from cnn.tables import parquet
from tests.plain_record import PLAIN
from tests.properties.fuzzing import damaged_bytes, damaged_json, fuzz

STEP = STEPS[1]
KEY = Key(
    STEP.makes,
    {
        "step": STEP.name,
        "settings": {"train.seed": 0, "train.steps": 300},
        "inputs": {"dataset": "d" * 64},
        "code": {"cnn.train.fit": "0" * 16},
        "tables": {"history": "1" * 16},
        "versions": {"keras": "3.15"},
    },
)
OTHER = Key(STEP.makes, {**KEY.components, "settings": {"train.seed": 1}})
DATA = Ref(kind="dataset", key="a" * 64, digest="b" * 64)


def _produce(folder: Path) -> Headline:
    (folder / "model.txt").write_text("weights")
    return {"accuracy": 0.5, "step": 300, "split": "test"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with one artifact, whose manifest the tests damage repeatedly."""
    store = Store(tmp_path_factory.mktemp("fuzz") / "artifacts")
    store.publish(KEY, (DATA,), _produce, {"kind": "cpu"})
    (store.root.parent / "outside.txt").write_text("weights")
    return store


@pytest.fixture(scope="module")
def whole(store: Store) -> dict[str, Any]:
    """The manifest as it was published."""
    stored: dict[str, Any] = json.loads(_path(store).read_bytes())
    return stored


def _path(store: Store) -> Path:
    return store.root / "store" / KEY.kind / KEY.digest / "manifest.json"


def _sealed(text: str) -> str:
    """Return a manifest's text with a valid seal, as a forger would write it."""
    try:
        stored = json.loads(text)
        stored.pop("seal", None)
        seal = hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()
        return json.dumps({**stored, "seal": seal})
    except (ValueError, RecursionError, AttributeError):
        return text


def _is_accepted(store: Store) -> bool:
    """Use the damaged manifest in every way; return whether the store accepts it."""
    found = store.find(KEY)
    assert (found.manifest is None) == bool(found.problem)
    decision = planning.decide(store, STEP, OTHER)
    assert decision.why
    for manifest in store.manifests(KEY.kind):
        keys.differences(manifest.components, KEY.components)
    if found.manifest is None:
        assert "\n" not in found.problem
        with pytest.raises(ArtifactError):
            store.open(Ref(kind=KEY.kind, key=KEY.digest, digest="c" * 64))
        return False
    assert store.open(found.manifest.ref) == _path(store).parent
    assert [file.path for file in found.manifest.files] == ["model.txt"]
    return True


@fuzz
@given(data=st.data())
def test_an_edited_manifest_is_not_accepted(
    store: Store, whole: dict[str, Any], data: st.DataObject
) -> None:
    """Whichever fields or bytes have changed, the artifact is not used."""
    text = data.draw(damaged_json(whole)).encode("utf-8", "surrogatepass")
    if data.draw(st.booleans()):
        text = data.draw(damaged_bytes(json.dumps(whole).encode()))
    _path(store).write_bytes(text)
    if _is_accepted(store):
        assert json.loads(text) == whole


@fuzz
@given(data=st.data())
def test_a_forged_manifest_names_no_file_outside_of_its_folder(
    store: Store, whole: dict[str, Any], data: st.DataObject
) -> None:
    """With a valid seal it may lie about the artifact, but no more than that."""
    _path(store).write_text(_sealed(data.draw(damaged_json(whole))), "utf-8", "surrogatepass")
    _is_accepted(store)


RECORD = PLAIN.model_copy(
    update={
        "config": {"train": {"seed": 0}},
        "training": {"steps": 300},
        "steps": (
            StepOutcome(step="load_dataset", state="cached", why="verified", seconds=0.1, ref=DATA),
            StepOutcome(step="train_model", state="ran", why="new", seconds=2),
        ),
        "headline": {"test_accuracy": 0.98, "n_test": 257, "validation_accuracy": 0.97},
        "environment": {"python": "3.11.7", "device": {"kind": "cpu"}},
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs; the tests damage the record of the first repeatedly."""
    folder = tmp_path_factory.mktemp("fuzz") / "artifacts" / "runs"
    for name in ("first", "second"):
        folders.publish(folder, RECORD.model_copy(update={"run": name}), {})
    return folder


@fuzz
@given(data=st.data())
def test_a_damaged_run_record_hides_no_other_run(folder: Path, data: st.DataObject) -> None:
    """It is read under its folder's name or skipped; the list and the index hold the others."""
    whole = json.loads(RECORD.model_dump_json())
    text = data.draw(damaged_json(whole)).encode("utf-8", "surrogatepass")
    if data.draw(st.integers(0, 3)) == 0:
        text = data.draw(damaged_bytes(json.dumps(whole).encode()))
    (folder / "first" / "run.json").write_bytes(text)
    try:
        known = {"second", records.read(folder / "first").run}
        assert known == {"first", "second"}
    except ArtifactError as error:
        assert "\n" not in str(error)
        known = {"second"}
    assert {record.run for record in records.read_all(folder)} == known
    index.rebuild(folder)
    rows = parquet.read(folder / "index.parquet")
    assert set(rows.column("run").to_pylist()) == known
    for name in ("latest", "first", "../../outside", "/etc"):
        try:
            record, path = records.find(folder, name)
            assert path.parent == folder
            json.dumps(record.model_dump(mode="json"), allow_nan=False)
        except ConfigError:
            assert name != "latest"
