"""Two trainings compared: by the command, and by each run with the model that is promoted."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cnn.commands import verify
from cnn.config import run as config
from cnn.report.pages import html
from cnn.runs import folders, records
from cnn.runs.records import RunRecord
from cnn.store import layout
from cnn.store.store import Store
from flows.train_and_explain import train_and_explain
from tests.flows.conftest import SHORT, Finished
from tests.flows.test_cli import Command, command
from tests.flows.test_train_and_explain import _task_runs

__all__ = ["command"]

pytestmark = pytest.mark.slow

OTHER = {"train": {**SHORT["train"], "seed": 1}}


@pytest.fixture(scope="module")
def store(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a promoted run and one of another seed, which was compared with it."""
    root = tmp_path_factory.mktemp("compared") / "artifacts"
    shutil.copytree(finished.store, root, symlinks=True)
    run(root, **OTHER)
    return root


@pytest.fixture
def copy(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that store, the one that the command finds."""
    root = tmp_path / "artifacts"
    shutil.copytree(store, root, symlinks=True)
    monkeypatch.setenv("FILTERSCOPE_STORE", str(root))
    return root


def run(store: Path, **sections: Any) -> tuple[Path, RunRecord]:
    folder = train_and_explain(config.validate({**SHORT, **sections}), store=store)
    assert isinstance(folder, Path)
    return folder, records.read(folder)


def both(store: Path) -> tuple[RunRecord, RunRecord]:
    """Return the records of the promoted run and of the other one."""
    first, second, *_ = records.read_all(store / "runs")
    return first, second


def states(record: RunRecord) -> dict[str, str]:
    return {name: str(task.state_name) for name, task in _task_runs(record.flow_run_id).items()}


def test_a_run_is_compared_with_the_promoted_model(store: Path) -> None:
    """Tables and pictures in its folder, a part of its page; gc and verify know of it."""
    promoted, record = both(store)
    folder = store / "runs" / record.run
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
        picture = (folder / f"figures/matches-{layer}.png").read_bytes()
        assert html.data_uri(picture) in text
    assert html.data_uri((folder / "figures/changed.png").read_bytes()) in text
    assert not verify.verify(Store(store)).broken


def test_the_changed_predictions_are_those_of_both_tables(store: Path) -> None:
    """Image by image, as the evaluations of the two runs have them."""
    tables = [
        pd.read_parquet(store / "runs" / record.run / "tables/predictions.parquet")
        for record in both(store)
    ]
    before, after = (table[table["split"] == "test"].set_index("image_id") for table in tables)
    differing = before.index[before["prediction"] != after["prediction"]]
    rows = pd.read_parquet(
        store / "runs" / both(store)[1].run / "tables/changed_predictions.parquet"
    ).set_index("image_id")
    assert list(rows.index) == list(differing)
    assert (rows["prediction_before"] == before.loc[differing, "prediction"]).all()
    assert (rows["prediction_after"] == after.loc[differing, "prediction"]).all()
    assert (rows["right_after"] == (rows["prediction_after"] == rows["label"])).all()


def test_the_promoted_model_itself_is_not_compared(copy: Path, finished: Finished) -> None:
    """Its run again has no such task, and no such part of its page."""
    in_force = both(copy)[0] if runs_promoted(copy) == both(copy)[0].run else both(copy)[1]
    sections = {} if in_force.seed == 0 else OTHER
    folder, record = run(copy, **sections)
    assert record.compared is None
    assert "compare_models" not in states(record)
    assert "Compared with" not in (folder / records.REPORT_NAME).read_text()


def runs_promoted(store: Path) -> str:
    text = (store / "promoted/digits/promoted.json").read_text()
    return str(json.loads(text)[-1]["run"])


def test_a_comparison_is_made_once(copy: Path) -> None:
    """A run whose model was compared with the promoted one finds it: nothing computes."""
    _, made = run(copy, train={**SHORT["train"], "steps": 2})
    assert made.gate is not None
    assert (made.gate.outcome, states(made)["compare_models"]) == ("rejected", "Completed")
    _, again = run(copy, train={**SHORT["train"], "steps": 2})
    assert set(states(again).values()) == {"Cached", "Completed"}
    assert states(again)["compare_models"] == "Cached"
    assert again.compared == made.compared
    assert again.steps[-1].ref == made.steps[-1].ref


def test_a_repeated_command_has_nothing_to_do_and_a_cached_one_imports_no_tensorflow(
    copy: Path, tmp_path: Path
) -> None:
    """The rejected run again, and once more with another gate, so that it is recorded anew."""
    run(copy, train={**SHORT["train"], "steps": 2})
    words = ["run", "--data.source", "digits", "--train.steps", "2", "--train.log_every", "20"]
    environment = {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        "HOME": str(tmp_path),
        "PREFECT_HOME": str(tmp_path / "prefect"),
    }

    def called(*more: str) -> tuple[str, str]:
        script = (
            "import sys\nfrom flows import cli\ntry:\n"
            f"    cli.main({[*words, *more, '--store', str(copy)]!r})\n"
            "finally:\n    print('imported', {'tensorflow', 'keras'} & set(sys.modules))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        return done.stdout, done.stderr

    said, errors = called()
    assert "nothing to do" in errors
    assert "imported set()" in said
    said, errors = called("--gate.max_megabytes", "100")
    assert "nothing to do" not in errors
    assert "compare_models" in said
    assert "imported set()" in said


def test_a_promoted_model_that_cannot_be_opened_does_not_fail_a_run(copy: Path) -> None:
    """Log and page say why; the run completes."""
    model = copy / "promoted/digits/model/model.keras"
    model.write_bytes(model.read_bytes()[:1000])
    folder, record = run(copy, train={**SHORT["train"], "steps": 2})
    assert record.status == "completed"
    assert record.compared is not None
    assert "model.keras" in record.compared.problem
    assert "It could not be compared: " in (folder / records.REPORT_NAME).read_text()
    assert not (folder / "tables/matches.parquet").exists()


def test_the_command_compares_two_runs(command: Command, copy: Path) -> None:
    """Metrics with their change, filters by status, predictions, and files that are whole."""
    before, after = both(copy)
    code, output, errors = command("compare", before.run, after.run, "--store", str(copy))
    assert code == 0, errors
    for word in ("test accuracy", "validation accuracy", "test loss", "calibration error"):
        assert word in output
    folder = copy / "compared" / layout.compared_name(before.run, after.run)
    assert f"pictures and tables  {folder}" in output
    assert {path.name for path in folder.iterdir()} == {
        "matches.parquet",
        "changed_predictions.parquet",
        "matches-conv1.png",
        "matches-conv2.png",
        "changed.png",
        "comparison.json",
    }
    told = json.loads((folder / "comparison.json").read_text())
    by_name = {(row["split"], row["metric"]): row for row in told["metrics"]}
    for split in ("test", "validation"):
        row = by_name[split, "accuracy"]
        assert row["before"] == before.headline[f"{split}_accuracy"]
        assert row["after"] == after.headline[f"{split}_accuracy"]
        assert row["ci_low"] <= row["change"] <= row["ci_high"]
        assert row["change"] == pytest.approx(row["after"] - row["before"])
    assert told["note"] == ""
    ids = pd.read_parquet(folder / "changed_predictions.parquet")["image_id"]
    assert told["first_changed"] == list(ids[:10])
    assert f"first of them: #{ids[0]}" in output
    run_tables = copy / "runs" / after.run / "tables"
    name = "matches.parquet"
    assert (folder / name).read_bytes() == (run_tables / name).read_bytes()


def test_the_command_prints_json_and_replaces_an_earlier_comparison(
    command: Command, copy: Path
) -> None:
    """Nothing else is left of it; the models are taken from the runs where the store has none."""
    before, after = both(copy)
    folder = copy / "compared" / layout.compared_name(after.run, before.run)
    folder.mkdir(parents=True)
    (folder / "old").touch()
    shutil.rmtree(copy / "store/model")
    code, output, errors = command("compare", after.run, before.run, "--json", "--store", str(copy))
    assert code == 0, errors
    told = json.loads(output)
    assert (told["before"], told["after"], told["folder"]) == (after.run, before.run, str(folder))
    assert [item["layer"] for item in told["layers"]] == ["conv1", "conv2"]
    assert not (folder / "old").exists()
    assert not list((copy / "compared").glob(".*"))


def test_a_run_on_other_data_is_compared_on_the_second_runs_images(
    command: Command, copy: Path
) -> None:
    """It is said, and figures of other images are not put side by side."""
    _, other = run(copy, data={"source": "digits", "split_seed": 5})
    first = both(copy)[0]
    code, output, _ = command("compare", other.run, first.run, "--json", "--store", str(copy))
    assert code == 0
    told = json.loads(output)
    assert f"{other.run} was trained on other data (digits)" in told["note"]
    assert [(row["split"], row["metric"]) for row in told["metrics"]] == [("test", "accuracy")]
    output = command("compare", other.run, first.run, "--store", str(copy))[1]
    assert "Note: " in output


def test_runs_that_cannot_be_compared_are_refused(command: Command, copy: Path) -> None:
    """Unknown, twice the same, failed, without its images: a message that says what to do."""
    first, second = (record.run for record in both(copy))

    def refused(*names: str) -> tuple[int, str]:
        code, output, errors = command("compare", *names, "--store", str(copy))
        assert output == ""
        assert errors.startswith("error: ")
        return code, errors

    code, said = refused("no-such-run", second)
    assert (code, "no run of that name" in said) == (2, True)
    code, said = refused(first, first)
    assert (code, "cannot be compared with itself; name another run" in said) == (2, True)
    failed = records.read(copy / "runs" / first).model_copy(
        update={"status": "failed", "run": f"{first}-failed", "steps": ()}
    )
    folders.publish(copy / "runs", failed, {})
    code, said = refused(failed.run, second)
    assert (code, "has no model: it failed; choose a run that completed" in said) == (1, True)
    shutil.rmtree(copy / "store/dataset")
    code, said = refused(first, second)
    assert (code, "the images of " + second in said) == (1, True)
    assert "run it again with its settings" in said


def test_models_that_read_other_images_are_refused(
    command: Command, copy: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Pictures of 20 x 20 pixels beside digits of 28 x 28; nothing is written."""
    from PIL import Image

    for i in range(24):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 20), np.uint8)).save(path)
    data = {"source": "folder", "path": str(tmp_path / "pictures")}
    _, other = run(copy, data=data, train={**SHORT["train"], "steps": 2, "batch_size": 4})
    code, _, errors = command("compare", both(copy)[0].run, other.run, "--store", str(copy))
    assert code == 2
    assert "the first model reads images of 28 x 28 x 1 pixels, the data set has 20" in errors
    assert not (copy / "compared").exists()
