"""Manifests, run records and refs with any content: used as they are meant, or refused in words."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cnn.errors import ArtifactError, ConfigError
from cnn.pipeline import planning
from cnn.pipeline.steps import STEPS
from cnn.runs import folders, index, records
from cnn.runs.records import RunRecord, StepOutcome
from cnn.store import keys
from cnn.store.keys import Key
from cnn.store.manifests import Headline
from cnn.store.refs import Ref
from cnn.store.store import Store
from cnn.tables import parquet
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
    """A store with one artifact, whose manifest is damaged again and again."""
    store = Store(tmp_path_factory.mktemp("fuzz") / "artifacts")
    store.publish(KEY, (DATA,), _produce, {"kind": "cpu"})
    (store.root.parent / "outside.txt").write_text("weights")
    return store


@pytest.fixture(scope="module")
def whole(store: Store) -> dict[str, Any]:
    """The manifest as it was made."""
    stored: dict[str, Any] = json.loads(_path(store).read_bytes())
    return stored


def _path(store: Store) -> Path:
    return store.root / "store" / KEY.kind / KEY.digest / "manifest.json"


def _sealed(text: str) -> str:
    """Return a manifest's text with the seal that fits it, as one who forges it writes it."""
    try:
        stored = json.loads(text)
        stored.pop("seal", None)
        seal = hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()
        return json.dumps({**stored, "seal": seal})
    except (ValueError, RecursionError, AttributeError):
        return text


def _look(store: Store) -> bool:
    """Use the damaged manifest in every way; return whether it was taken."""
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
def test_an_edited_manifest_is_not_taken(
    store: Store, whole: dict[str, Any], data: st.DataObject
) -> None:
    """Whatever field says something else, and whatever bytes changed, the artifact is not used."""
    text = data.draw(damaged_json(whole)).encode("utf-8", "surrogatepass")
    if data.draw(st.booleans()):
        text = data.draw(damaged_bytes(json.dumps(whole).encode()))
    _path(store).write_bytes(text)
    if _look(store):
        assert json.loads(text) == whole


@fuzz
@given(data=st.data())
def test_a_forged_manifest_leads_nowhere_else(
    store: Store, whole: dict[str, Any], data: st.DataObject
) -> None:
    """One with a fitting seal may lie about itself, but it names no file outside of its folder."""
    _path(store).write_text(_sealed(data.draw(damaged_json(whole))), "utf-8", "surrogatepass")
    _look(store)


@fuzz
@given(content=st.data())
def test_a_ref_is_whole_or_refused(store: Store, content: st.DataObject) -> None:
    """No text but a kind and two digests names an artifact, and no ref leads out of the store."""
    text = content.draw(damaged_json(DATA.model_dump()))
    try:
        ref = Ref.model_validate_json(text.encode("utf-8", "surrogatepass"))
    except ValidationError:
        return
    with pytest.raises(ArtifactError, match="missing or damaged"):
        store.open(ref)


RECORD = RunRecord(
    run="20260301T123045Z-digits-fast-seed0",
    created=datetime(2026, 3, 1, 12, 30, 45, tzinfo=UTC),
    status="completed",
    data="digits",
    recipe="fast",
    seed=0,
    config={"train": {"seed": 0}},
    training={"steps": 300},
    steps=(
        StepOutcome(step="load_dataset", state="cached", why="verified", seconds=0.1, ref=DATA),
        StepOutcome(step="train_model", state="ran", why="new", seconds=2),
    ),
    headline={"test_accuracy": 0.98, "n_test": 257, "validation_accuracy": 0.97},
    seconds=12.5,
    environment={"python": "3.11.7", "device": {"kind": "cpu"}},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs; the record of the first is damaged again and again."""
    folder = tmp_path_factory.mktemp("fuzz") / "artifacts" / "runs"
    for name in ("first", "second"):
        folders.publish(folder, RECORD.model_copy(update={"run": name}), {})
    return folder


@fuzz
@given(data=st.data())
def test_a_damaged_run_record_hides_no_other_run(folder: Path, data: st.DataObject) -> None:
    """It is read or left out; lists, index and names go on, and go by the folder's name."""
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
