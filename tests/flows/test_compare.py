"""Comparisons of two trainings: by the command, and of each run with the promoted model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cnn.commands import verify
from cnn.report.pages import html
from cnn.runs import folders, records
from cnn.runs.records import RunRecord
from cnn.store import layout
from cnn.store.store import Store
from tests import commands
from tests.flows.conftest import Command, Finished, run, task_states

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compared(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a promoted run and one of another seed, which was compared with it."""
    root = tmp_path_factory.mktemp("compared") / "artifacts"
    shutil.copytree(finished.store, root, symlinks=True)
    run(root, train={"seed": 1})
    return root


@pytest.fixture
def copy(compared: Path, tmp_path: Path) -> Path:
    """A copy of that store, which the command uses."""
    root = tmp_path / "artifacts"
    shutil.copytree(compared, root, symlinks=True)
    return root


def both(store: Path) -> tuple[RunRecord, RunRecord]:
    """Return the records of the promoted run and of the other one."""
    first, second, *_ = records.read_all(store / "runs")
    return first, second


def test_a_run_is_compared_with_the_promoted_model(compared: Path) -> None:
    """Its folder has tables and figures of the comparison, its report a section."""
    promoted, record = both(compared)
    folder = compared / "runs" / record.run
    assert record.compared == records.ComparedWith(run=promoted.run)
    assert record.steps[-1].step == "compare_models"
    assert promoted.compared is None
    rows = pd.read_parquet(folder / "tables/matches.parquet")
    for layer, n in (("conv1", 25), ("conv2", 64)):
        for side in ("filter_before", "filter_after"):
            numbers = rows[rows["layer"] == layer][side].dropna()
            assert sorted(numbers) == list(range(n))
    text = (folder / records.REPORT_NAME).read_text()
    assert f"Compared with the promoted model of {promoted.run}" in text
    for layer in ("conv1", "conv2"):
        figure = (folder / f"figures/matches-{layer}.png").read_bytes()
        assert html.data_uri(figure) in text
    assert html.data_uri((folder / "figures/changed.png").read_bytes()) in text
    assert not verify.verify(Store(compared)).broken


def test_the_changed_predictions_agree_with_both_runs(compared: Path) -> None:
    """The table has exactly the test images whose predictions differ between the two runs."""
    folders = [compared / "runs" / record.run / "tables" for record in both(compared)]
    tables = [pd.read_parquet(folder / "predictions.parquet") for folder in folders]
    before, after = (table[table["split"] == "test"].set_index("image_id") for table in tables)
    differing = before.index[before["prediction"] != after["prediction"]]
    rows = pd.read_parquet(folders[1] / "changed_predictions.parquet").set_index("image_id")
    assert list(rows.index) == list(differing)
    assert (rows["prediction_before"] == before.loc[differing, "prediction"]).all()
    assert (rows["prediction_after"] == after.loc[differing, "prediction"]).all()
    assert (rows["right_after"] == (rows["prediction_after"] == rows["label"])).all()


def test_the_promoted_model_itself_is_not_compared(copy: Path) -> None:
    """If its run is repeated, there is no comparison task and no section in the report."""
    history = json.loads((copy / "promoted/digits/promoted.json").read_text())
    promoted = records.read(copy / "runs" / history[-1]["run"])
    folder, record = run(copy, train={"seed": promoted.seed})
    assert record.compared is None
    assert "compare_models" not in task_states(record.flow_run_id)
    assert "Compared with" not in (folder / records.REPORT_NAME).read_text()


def test_a_comparison_is_cached(copy: Path) -> None:
    """If the model was compared with the promoted one before, nothing is computed again."""
    _, first = run(copy, train={"steps": 2})
    assert first.gate is not None
    assert first.gate.outcome == "rejected"
    assert task_states(first.flow_run_id)["compare_models"] == "Completed"
    _, again = run(copy, train={"steps": 2})
    states = task_states(again.flow_run_id)
    assert set(states.values()) == {"Cached", "Completed"}
    assert states["compare_models"] == "Cached"
    assert again.compared == first.compared
    assert again.steps[-1].ref == first.steps[-1].ref


def test_a_repeated_command_has_nothing_to_do_and_a_cached_one_imports_no_tensorflow(
    copy: Path, tmp_path: Path
) -> None:
    """A rejected run is repeated, then run with other limits of the gate, which records a run."""
    run(copy, train={"steps": 2})
    words = ["run", "--data.source", "digits", "--train.steps", "2", "--train.log_every", "20"]
    environment = commands.environment(tmp_path)
    done = commands.run_python(commands.IMPORTS, *words, environment=environment)
    assert "nothing to do" in done.stderr
    assert "imported []" in done.stdout
    words += ["--gate.max_megabytes", "100"]
    done = commands.run_python(commands.IMPORTS, *words, environment=environment)
    assert "nothing to do" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "compare_models" in done.stdout
    imported = done.stdout.splitlines()[-1]
    assert "tensorflow" not in imported
    assert "keras" not in imported


def test_a_promoted_model_that_cannot_be_opened_does_not_fail_a_run(copy: Path) -> None:
    """The report and the record say why; the run completes."""
    model = copy / "promoted/digits/model/model.keras"
    model.write_bytes(model.read_bytes()[:1000])
    folder, record = run(copy, train={"steps": 2})
    assert record.status == "completed"
    assert record.compared is not None
    assert "model.keras" in record.compared.problem
    assert "It could not be compared: " in (folder / records.REPORT_NAME).read_text()
    assert not (folder / "tables/matches.parquet").exists()


def test_the_command_compares_two_runs(command: Command, copy: Path) -> None:
    """It prints the metrics with their changes, and writes tables and figures."""
    before, after = both(copy)
    code, output, errors = command("compare", before.run, after.run)
    assert code == 0, errors
    for word in ("test accuracy", "validation accuracy", "test loss", "calibration error"):
        assert word in output
    folder = copy / "compared" / layout.compared_name(before.run, after.run)
    assert f"figures and tables  {folder}" in output
    assert {path.name for path in folder.iterdir()} == {
        "matches.parquet",
        "changed_predictions.parquet",
        "matches-conv1.png",
        "matches-conv2.png",
        "changed.png",
        "comparison.json",
    }
    written = json.loads((folder / "comparison.json").read_text())
    by_name = {(row["split"], row["metric"]): row for row in written["metrics"]}
    for split in ("test", "validation"):
        row = by_name[split, "accuracy"]
        assert row["before"] == before.headline[f"{split}_accuracy"]
        assert row["after"] == after.headline[f"{split}_accuracy"]
        assert row["ci_low"] <= row["change"] <= row["ci_high"]
        assert row["change"] == pytest.approx(row["after"] - row["before"])
    assert written["note"] == ""
    ids = pd.read_parquet(folder / "changed_predictions.parquet")["image_id"]
    assert written["first_changed"] == list(ids[:10])
    assert f"first of them: #{ids[0]}" in output
    of_run = copy / "runs" / after.run / "tables/matches.parquet"
    assert (folder / "matches.parquet").read_bytes() == of_run.read_bytes()


def test_the_command_prints_json_and_replaces_an_earlier_comparison(
    command: Command, copy: Path
) -> None:
    """No old file is left; without models in the store, the copies of the runs are used."""
    before, after = both(copy)
    folder = copy / "compared" / layout.compared_name(after.run, before.run)
    folder.mkdir(parents=True)
    (folder / "old").touch()
    shutil.rmtree(copy / "store/model")
    code, output, errors = command("compare", after.run, before.run, "--json")
    assert code == 0, errors
    printed = json.loads(output)
    names = [printed[key] for key in ("before", "after", "folder")]
    assert names == [after.run, before.run, str(folder)]
    assert [item["layer"] for item in printed["layers"]] == ["conv1", "conv2"]
    assert not (folder / "old").exists()
    assert not list((copy / "compared").glob(".*"))


def test_a_run_on_other_data_is_compared_on_the_second_runs_images(
    command: Command, copy: Path
) -> None:
    """A note names the difference, and metrics of different images are not compared."""
    _, other = run(copy, data={"split_seed": 5})
    first = both(copy)[0]
    code, output, _ = command("compare", other.run, first.run, "--json")
    assert code == 0
    printed = json.loads(output)
    assert f"{other.run} was trained on other data (digits)" in printed["note"]
    assert [(row["split"], row["metric"]) for row in printed["metrics"]] == [("test", "accuracy")]
    assert "Note: " in command("compare", other.run, first.run)[1]


def test_runs_that_cannot_be_compared_are_refused(command: Command, copy: Path) -> None:
    """An unknown run, the same run twice, a failed run, a run whose images are gone."""
    first, second = (record.run for record in both(copy))

    def assert_refused(code: int, message: str, *names: str) -> None:
        found, output, errors = command("compare", *names)
        assert (found, output, errors[:7], message in errors) == (code, "", "error: ", True), errors

    assert_refused(2, "no run of that name", "no-such-run", second)
    assert_refused(2, "cannot be compared with itself; name another run", first, first)
    failed = records.read(copy / "runs" / first).model_copy(
        update={"status": "failed", "run": f"{first}-failed", "steps": ()}
    )
    folders.publish(copy / "runs", failed, {})
    message = "has no model: it failed; choose a run that completed"
    assert_refused(1, message, failed.run, second)
    shutil.rmtree(copy / "store/dataset")
    assert_refused(1, f"the images of {second}", first, second)
    assert_refused(1, "start the run again with its settings", first, second)


def test_models_that_read_other_images_are_refused(
    command: Command, copy: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    """One reads images of 20 x 20 pixels, the other of 28 x 28; nothing is written."""
    from PIL import Image

    for i in range(24):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 20), np.uint8)).save(path)
    data = {"source": "folder", "path": str(tmp_path / "pictures")}
    _, other = run(copy, data=data, train={"steps": 2, "batch_size": 4})
    code, _, errors = command("compare", both(copy)[0].run, other.run)
    assert code == 2
    assert "the first model reads images of 28 x 28 x 1 pixels, the data set has 20" in errors
    assert not (copy / "compared").exists()
