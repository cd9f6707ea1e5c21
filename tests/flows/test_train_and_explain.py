"""The main job on digits, end to end, on a real Prefect server."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import keras
import numpy as np
import pandas as pd
import polars as pl
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact, TaskRun

from cnn.config import run as config
from cnn.data import dataset as datasets
from cnn.errors import ConfigError, DataError
from cnn.store.refs import Ref
from cnn.tables import schemas
from cnn.train.fit import DivergedError
from flows.train_and_explain import train_and_explain
from tests import ROOT
from tests.flows.conftest import SHORT, Finished

ARRAYS = ("filters", "patches", "projections")
STEPS = [
    "load_dataset",
    "train_model",
    "evaluate_model",
    "export_filters",
    "mine_patches",
    "write_report",
]
COMPARED = ("matches", "changed_predictions")  # only beside a promoted model


def _artifacts(flow_run_id: str) -> dict[str, Artifact]:
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        return {item.key: item for item in client.read_artifacts(artifact_filter=wanted)}


def _task_runs(flow_run_id: str) -> dict[str, TaskRun]:
    with get_client(sync_client=True) as client:
        answer = client.request(
            "POST", "/task_runs/filter", json={"flow_runs": {"id": {"any_": [flow_run_id]}}}
        )
    return {item["name"]: TaskRun.model_validate(item) for item in answer.json()}


def _ref(finished: Finished, kind: str) -> Ref:
    return next(s.ref for s in finished.record.steps if s.ref and s.ref.kind == kind)


def _artifact(finished: Finished, kind: str) -> Path:
    return finished.store / "store" / kind / _ref(finished, kind).key


def test_a_run_folder_holds_everything_a_consumer_needs(finished: Finished) -> None:
    """Report, record, figures, tables, arrays and model lie in the run's folder."""
    present = {str(p.relative_to(finished.folder)) for p in finished.folder.rglob("*.*")}
    names = ("samples", "history", "confusion", "calibration", "mistakes")
    arrays = [f"{what}-{layer}" for what in ARRAYS for layer in ("conv1", "conv2")]
    names += (*arrays, "health-conv1", "health-conv2")
    written = set(schemas.SCHEMAS) - {"runs", *COMPARED}
    assert present == {
        "report.html",
        "run.json",
        *(f"figures/{name}.png" for name in names),
        *(f"arrays/{name}.npy" for name in arrays),
        *(f"tables/{name}.parquet" for name in written),
        "model/model.keras",
        "model/model.json",
        "model/training.json",
    }


def test_a_fresh_run_says_that_every_step_ran_and_why(finished: Finished) -> None:
    """The record names each step once, in order, with its reason and its ref."""
    assert [step.step for step in finished.record.steps] == STEPS
    assert {step.state for step in finished.record.steps} == {"ran"}
    assert [step.why for step in finished.record.steps] == [
        f"no {kind} in the store yet"
        for kind in ("dataset", "model", "evaluation", "filters", "patches", "report")
    ]


def test_the_accuracy_reported_is_that_of_the_predictions(finished: Finished) -> None:
    """run.json, the metrics table and the predictions table agree, on every image once."""
    predictions = pd.read_parquet(finished.folder / "tables/predictions.parquet")
    test = predictions[predictions["split"] == "test"]
    assert sorted(test["image_id"].unique()) == sorted(test["image_id"])
    accuracy = (test["label"] == test["prediction"]).sum() / len(test)
    metrics = pd.read_parquet(finished.folder / "tables/metrics.parquet")
    row = metrics[(metrics["split"] == "test") & (metrics["metric"] == "accuracy")].iloc[0]
    assert accuracy == row["value"] == finished.record.headline["test_accuracy"]
    assert row["n"] == len(test) == 257
    assert accuracy > 0.8


@pytest.mark.parametrize("name", sorted(set(schemas.SCHEMAS) - {"runs", *COMPARED}))
def test_pandas_polars_and_duckdb_read_every_table_alike(finished: Finished, name: str) -> None:
    """Names, order and number of rows are the same, and the names are those declared."""
    path = finished.folder / "tables" / f"{name}.parquet"
    read = pd.read_parquet(path)
    relation = duckdb.sql(f"select * from '{path}'")
    assert list(read.columns) == schemas.SCHEMAS[name].names
    assert list(read.columns) == pl.read_parquet(path).columns == relation.columns
    assert len(read) == len(pl.read_parquet(path)) == len(relation.fetchall()) > 0


def test_the_model_opens_where_the_project_is_not_importable(
    finished: Finished, tmp_path: Path
) -> None:
    """Stock Keras opens it and reproduces the stored probabilities from raw pixels."""
    dataset = datasets.read(_artifact(finished, "dataset"))
    np.save(tmp_path / "images.npy", dataset.splits["test"].images)
    shutil.copy(finished.folder / "model/model.keras", tmp_path)
    script = (
        "import importlib.util, keras, numpy as np\n"
        "assert importlib.util.find_spec('cnn') is None\n"
        "model = keras.models.load_model('model.keras')\n"
        "np.save('out.npy', model.predict(np.load('images.npy'), verbose=0))\n"
    )
    hidden = (
        "import sys\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        f"sys.path = [p for p in sys.path if p != {str(ROOT)!r}]\n"
    )
    subprocess.run([sys.executable, "-I", "-c", hidden + script], cwd=tmp_path, check=True)
    stored = pd.read_parquet(finished.folder / "tables/predictions.parquet")
    stored = stored[stored["split"] == "test"]
    fresh = np.load(tmp_path / "out.npy")
    assert np.abs(fresh - np.stack(stored["probabilities"])).max() < 1e-4
    assert (fresh.argmax(axis=1) == stored["prediction"]).all()


def test_every_patch_can_be_recomputed_from_model_and_image(finished: Finished) -> None:
    """Activation, box and pixels of each row follow from the raw kernel and the raw image."""
    model = keras.models.load_model(finished.folder / "model/model.keras")
    kernel, bias = model.get_layer("conv1").get_weights()
    dataset = datasets.read(_artifact(finished, "dataset"))
    test = dataset.splits["test"]
    by_id = {int(image_id): image for image_id, image in zip(test.ids, test.images, strict=True)}
    pixels = np.load(finished.folder / "arrays/patches-conv1.npy")
    patches = pd.read_parquet(finished.folder / "tables/patches.parquet")
    for row in patches[patches["layer"] == "conv1"].itertuples():
        assert (row.y0, row.x0) == (2 * row.y, 2 * row.x)
        crop = by_id[row.image_id][row.y0 : row.y1, row.x0 : row.x1]
        value = (crop.astype(np.float64) / 255 * kernel[..., row.filter]).sum() + bias[row.filter]
        assert abs(value - row.activation) < 1e-4
        assert (pixels[row.filter, row.rank - 1] == crop).all()


def test_ui_artifacts_are_there_and_hold_no_nan(finished: Finished) -> None:
    """Progress, metrics, reasons and pictures can be seen in the UI, as plain JSON values."""
    shown = _artifacts(str(finished.record.flow_run_id))
    assert {"metrics", "why-each-step-ran", "pictures", "train-model-progress"} <= set(shown)
    for item in shown.values():
        json.loads(json.dumps(item.data), parse_constant=pytest.fail)
    assert shown["train-model-progress"].data == 100
    assert shown["pictures"].data.count("data:image/png;base64,") == 13
    rows = json.loads(shown["why-each-step-ran"].data)
    assert [row["step"] for row in rows] == STEPS


def test_a_second_run_finds_every_step_cached(finished: Finished) -> None:
    """All steps end in a state named Cached, and the run has its folder and its pages."""
    folder = train_and_explain(finished.config, store=finished.store)
    again = Finished(finished.config, finished.store, folder)
    assert folder != finished.folder
    assert {step.state for step in again.record.steps} == {"cached"}
    assert [step.ref for step in again.record.steps] == [s.ref for s in finished.record.steps]
    states = {name: run.state_name for name, run in _task_runs(again.record.flow_run_id).items()}
    assert states == dict.fromkeys(STEPS, "Cached") | {"publish_run": "Completed"}
    shown = _artifacts(again.record.flow_run_id)
    assert {"metrics", "why-each-step-ran", "pictures", "train-model-progress"} <= set(shown)
    index = pd.read_parquet(finished.store / "runs/index.parquet")
    assert {folder.name, finished.folder.name} <= set(index["run"])


@pytest.mark.parametrize("kind", ["evaluation", "filters", "patches", "report"])
def test_a_damaged_artifact_is_made_anew(finished: Finished, kind: str) -> None:
    """A truncated file is noticed, set aside, named, and the step runs again."""
    folder = _artifact(finished, kind)
    victim = max(folder.glob("*.*"), key=lambda path: path.name != "manifest.json")
    before = victim.read_bytes()
    victim.write_bytes(before[: len(before) // 2])
    again = Finished(
        finished.config, finished.store, train_and_explain(finished.config, store=finished.store)
    )
    outcome = next(step for step in again.record.steps if step.ref and step.ref.kind == kind)
    assert outcome.state == "ran"
    assert victim.name in outcome.why
    assert victim.read_bytes() == before
    assert outcome.ref == _ref(finished, kind)
    assert any((finished.store / "quarantine").glob(f"{kind}-*"))


def test_refresh_runs_a_step_and_what_follows(finished: Finished) -> None:
    """The step that is named runs, and the report that reads it; nothing else does."""
    folder = train_and_explain(finished.config, store=finished.store, refresh=["evaluate_model"])
    record = Finished(finished.config, finished.store, folder).record
    ran = {step.step for step in record.steps if step.state == "ran"}
    assert ran == {"evaluate_model", "write_report"}
    assert [step.ref for step in record.steps] == [s.ref for s in finished.record.steps]


def test_a_training_that_diverges_fails_and_keeps_its_history(
    prefect_server: None, tmp_path: Path
) -> None:
    """No model is published, no later step starts, the history says where it ended."""
    wild = config.validate(SHORT | {"train": {"learning_rate": 1e6, "steps": 60}})
    with pytest.raises(DivergedError, match=r"at step \d+ of 60 \(epoch 1\)"):
        train_and_explain(wild, store=tmp_path)
    assert not (tmp_path / "store/model").exists()
    assert not (tmp_path / "store/evaluation").exists()
    (folder,) = (tmp_path / "runs").glob("2*")
    record = json.loads((folder / "run.json").read_text(), parse_constant=pytest.fail)
    assert record["status"] == "failed"
    assert [step["state"] for step in record["steps"]] == ["ran", "failed"]
    history = pd.read_parquet(folder / "tables/history.parquet")
    assert history["status"].iloc[-1] == "diverged"


def test_data_that_are_refused_leave_no_run(prefect_server: None, tmp_path: Path) -> None:
    """A missing folder ends the flow before anything is made."""
    settings = config.validate({"data": {"source": "folder", "path": str(tmp_path / "none")}})
    with pytest.raises(DataError, match="there is no such folder"):
        train_and_explain(settings, store=tmp_path / "store")
    assert not (tmp_path / "store/runs").exists()


def test_a_split_without_images_is_not_mined(prefect_server: None, tmp_path: Path) -> None:
    """Filters are not called dead because nothing was looked at; it is said before training."""
    settings = config.validate(
        {
            "data": {"source": "digits", "validation_fraction": 0},
            "train": {"steps": 1},
            "explain": {"split": "validation"},
        }
    )
    with pytest.raises(ConfigError, match=r"explain\.split: validation is refused"):
        train_and_explain(settings, store=tmp_path)
    assert not (tmp_path / "store/model").exists()


def test_more_patches_than_positions_are_refused_before_training(
    prefect_server: None, tmp_path: Path
) -> None:
    """Of 257 test images, one patch of each."""
    explain = {"patches_per_filter": 258, "one_per_image": True}
    settings = config.validate({"data": {"source": "digits"}, "explain": explain})
    words = r"explain\.patches_per_filter: 258 is refused; a filter of conv1 has 257 positions"
    with pytest.raises(ConfigError, match=words):
        train_and_explain(settings, store=tmp_path)
    assert not (tmp_path / "store/model").exists()


def test_an_edited_headline_is_noticed(finished: Finished) -> None:
    """A manifest that was changed by hand is not believed."""
    manifest = _artifact(finished, "evaluation") / "manifest.json"
    before = manifest.read_text()
    accuracy = str(finished.record.headline["test_accuracy"])
    manifest.write_text(before.replace(f'"test_accuracy": {accuracy}', '"test_accuracy": 0.999'))
    assert manifest.read_text() != before
    folder = train_and_explain(finished.config, store=finished.store)
    again = Finished(finished.config, finished.store, folder).record
    assert again.headline == finished.record.headline
    assert "manifest.json was changed" in again.steps[2].why


def test_the_flow_refuses_auto(prefect_server: None, tmp_path: Path) -> None:
    """Only the command may choose another data set than the one that was asked for."""
    with pytest.raises(ConfigError, match="auto is resolved by the command"):
        train_and_explain(config.validate({"data": {"source": "auto"}}), store=tmp_path)


@pytest.mark.slow
def test_two_runs_from_empty_stores_give_the_same_bytes(finished: Finished, tmp_path: Path) -> None:
    """Digests of weights and SHA-256 of tables and pictures are equal; another seed differs."""
    again = Finished(finished.config, tmp_path, train_and_explain(finished.config, store=tmp_path))
    assert [step.ref for step in again.record.steps] == [s.ref for s in finished.record.steps]
    for path in sorted(finished.folder.rglob("*.*")):
        if path.suffix in (".parquet", ".png", ".npy"):
            twin = again.folder / path.relative_to(finished.folder)
            assert twin.read_bytes() == path.read_bytes(), path.name
    other = config.validate(SHORT | {"train": SHORT["train"] | {"seed": 1}})
    folder = train_and_explain(other, store=tmp_path)
    changed = Finished(other, tmp_path, folder)
    assert _ref(changed, "model").digest != _ref(finished, "model").digest
