"""The main job on digits, end to end, on a real Prefect server."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import keras
import numpy as np
import pandas as pd
import polars as pl
import pytest

from cnn.config import run as config
from cnn.data import dataset as datasets
from cnn.errors import ConfigError, DataError
from cnn.store.refs import Ref
from cnn.tables import schemas
from flows.train_and_explain import train_and_explain
from tests import ROOT
from tests.flows.conftest import STEPS, Finished, run, task_states, ui_artifacts

ARRAYS = ("filters", "patches", "projections")
COMPARED = ("matches", "changed_predictions")  # only with a comparison
IN_THE_UI = {"metrics", "why-each-step-ran", "pictures", "train-model-progress"}


def _ref(finished: Finished, kind: str) -> Ref:
    return next(s.ref for s in finished.record.steps if s.ref and s.ref.kind == kind)


def _artifact(finished: Finished, kind: str) -> Path:
    return finished.store / "store" / kind / _ref(finished, kind).key


def test_a_run_folder_holds_everything_a_consumer_needs(finished: Finished) -> None:
    """It has the report, the record, figures, tables, arrays and the model, and nothing else."""
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


def test_the_record_says_why_each_step_of_a_first_run_ran(finished: Finished) -> None:
    """It has each step once, in order, with its reason."""
    assert [step.step for step in finished.record.steps] == STEPS
    assert {step.state for step in finished.record.steps} == {"ran"}
    assert [step.why for step in finished.record.steps] == [
        f"no {kind} in the store yet"
        for kind in ("dataset", "model", "evaluation", "filters", "patches", "report")
    ]


def test_the_reported_accuracy_is_that_of_the_predictions(finished: Finished) -> None:
    """run.json, the metrics table and the predictions table agree; each image counts once."""
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
    """They find the declared columns, in order, and the same number of rows."""
    path = finished.folder / "tables" / f"{name}.parquet"
    read = pd.read_parquet(path)
    relation = duckdb.sql(f"select * from '{path}'")
    assert list(read.columns) == schemas.SCHEMAS[name].names
    assert list(read.columns) == pl.read_parquet(path).columns == relation.columns
    assert len(read) == len(pl.read_parquet(path)) == len(relation.fetchall()) > 0


def test_the_model_opens_where_the_project_is_not_importable(
    finished: Finished, tmp_path: Path
) -> None:
    """Keras alone opens it and reproduces the stored probabilities from raw pixels."""
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
    """Activation, box and pixels of each row follow from the kernel and the image."""
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


def test_the_artifacts_in_the_ui_are_plain_json(finished: Finished) -> None:
    """Progress, metrics, reasons and figures are shown, without NaN or infinity."""
    shown = ui_artifacts(finished.record.flow_run_id)
    assert set(shown) >= IN_THE_UI
    for item in shown.values():
        json.loads(json.dumps(item.data), parse_constant=pytest.fail)
    assert shown["train-model-progress"].data == 100
    assert str(shown["pictures"].data).count("data:image/png;base64,") == 13
    rows = json.loads(str(shown["why-each-step-ran"].data))
    assert [row["step"] for row in rows] == STEPS


def test_every_step_of_a_second_run_is_cached(finished: Finished) -> None:
    """The steps end in a state named Cached; the run has its own folder and UI artifacts."""
    folder, again = run(finished.store)
    assert folder != finished.folder
    assert {step.state for step in again.steps} == {"cached"}
    assert [step.ref for step in again.steps] == [step.ref for step in finished.record.steps]
    states = task_states(again.flow_run_id)
    assert states == dict.fromkeys(STEPS, "Cached") | {"publish_run": "Completed"}
    assert set(ui_artifacts(again.flow_run_id)) >= IN_THE_UI
    index = pd.read_parquet(finished.store / "runs/index.parquet")
    assert {folder.name, finished.folder.name} <= set(index["run"])


@pytest.mark.parametrize("kind", ["evaluation", "filters", "patches", "report"])
def test_a_damaged_artifact_is_rebuilt(finished: Finished, kind: str) -> None:
    """A truncated artifact goes to quarantine, the record names the file, and the step runs."""
    folder = _artifact(finished, kind)
    victim = max(folder.glob("*.*"), key=lambda path: path.name != "manifest.json")
    before = victim.read_bytes()
    victim.write_bytes(before[: len(before) // 2])
    _, again = run(finished.store)
    outcome = next(step for step in again.steps if step.ref and step.ref.kind == kind)
    assert outcome.state == "ran"
    assert victim.name in outcome.why
    assert victim.read_bytes() == before
    assert outcome.ref == _ref(finished, kind)
    assert any((finished.store / "quarantine").glob(f"{kind}-*"))


def test_refresh_runs_a_step_and_those_that_depend_on_it(finished: Finished) -> None:
    """The named step and the report, which reads it, run; the others are cached."""
    folder = train_and_explain(finished.config, store=finished.store, refresh=["evaluate_model"])
    record = Finished(finished.config, finished.store, folder).record
    ran = {step.step for step in record.steps if step.state == "ran"}
    assert ran == {"evaluate_model", "write_report"}
    assert [step.ref for step in record.steps] == [s.ref for s in finished.record.steps]


def test_refused_data_leaves_no_run(prefect_server: None, tmp_path: Path) -> None:
    """A missing folder ends the flow before a run folder exists."""
    settings = config.validate({"data": {"source": "folder", "path": str(tmp_path / "none")}})
    with pytest.raises(DataError, match="there is no such folder"):
        train_and_explain(settings, store=tmp_path / "store")
    assert not (tmp_path / "store/runs").exists()


@pytest.mark.parametrize(
    ("data", "explain", "message"),
    [
        (
            {"validation_fraction": 0},
            {"split": "validation"},
            r"explain\.split: validation is refused",
        ),
        (
            {},
            {"patches_per_filter": 258, "one_per_image": True},  # there are 257 test images
            r"explain\.patches_per_filter: 258 is refused; a filter of conv1 has 257 positions",
        ),
        ({"source": "auto"}, {}, "auto is resolved by the command"),
    ],
    ids=["empty split", "too many patches", "auto"],
)
def test_impossible_settings_are_refused_before_training(
    prefect_server: None, tmp_path: Path, data: Any, explain: Any, message: str
) -> None:
    """A split without images, more patches than positions, a source that only the command knows."""
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, data=data, explain=explain)
    assert not (tmp_path / "store/model").exists()


def test_an_edited_headline_is_noticed(finished: Finished) -> None:
    """A manifest that was changed by hand is not trusted."""
    manifest = _artifact(finished, "evaluation") / "manifest.json"
    before = manifest.read_text()
    accuracy = str(finished.record.headline["test_accuracy"])
    manifest.write_text(before.replace(f'"test_accuracy": {accuracy}', '"test_accuracy": 0.999'))
    assert manifest.read_text() != before
    _, again = run(finished.store)
    assert again.headline == finished.record.headline
    assert "manifest.json was changed" in again.steps[2].why


@pytest.mark.slow
def test_two_runs_from_empty_stores_give_the_same_bytes(finished: Finished, tmp_path: Path) -> None:
    """Weights, tables and figures are equal; with another seed the weights differ."""
    folder, again = run(tmp_path)
    assert [step.ref for step in again.steps] == [step.ref for step in finished.record.steps]
    for path in sorted(finished.folder.rglob("*.*")):
        if path.suffix in (".parquet", ".png", ".npy"):
            twin = folder / path.relative_to(finished.folder)
            assert twin.read_bytes() == path.read_bytes(), path.name
    _, other = run(tmp_path, train={"seed": 1})
    (model,) = (step.ref for step in other.steps if step.ref and step.ref.kind == "model")
    assert model.digest != _ref(finished, "model").digest
