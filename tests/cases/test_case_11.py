"""Case 11: NaN: training goes on, no model is saved, the UI table is empty."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prefect.testing.utilities import prefect_test_harness

from cnn import formatting
from cnn.config import run as config
from cnn.config.run import RuntimeConfig
from cnn.errors import DataError
from cnn.report.pages import prefect_ui
from cnn.train import device, fit, recipes
from flows import cli, console
from tests.cases import inputs


def strictly(text: str) -> Any:
    """Return what JSON says; NaN and Infinity are no JSON."""
    return json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize("code", [0x0D, 0x0E])
@pytest.mark.parametrize("part", ["train", "t10k"])
@pytest.mark.parametrize(
    "bad", [{13: math.nan, 21: math.inf}, {0: -math.inf}, dict.fromkeys(range(20), math.nan)]
)
@pytest.mark.parametrize("scale", [1, 255])
def test_images_with_nan_are_refused_by_their_numbers(
    tmp_path: Path, code: int, part: str, bad: dict[int, float], scale: int
) -> None:
    """Which file and which images, up to ten; nothing else is said to be wrong."""
    good = inputs.good_set(n_test=30)
    arrays = {n: a / np.float32(scale) if "images" in n else a for n, a in good.items()}
    for image, value in bad.items():
        arrays[f"{part}-images"][image, 5, 5] = value
    inputs.write_set(tmp_path, arrays, codes={"images": code})
    first = ", ".join(str(image) for image in list(bad)[:10])
    wanted = f"{part}-images.*: NaN or infinity in {len(bad)} images: {first}(, ...)?$"
    with pytest.raises(DataError, match=wanted):
        inputs.load(tmp_path)


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_the_command_refuses_them_before_anything_is_written(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, one message, no traceback, no artifact, no run."""
    arrays = {n: a.astype(np.float32) for n, a in inputs.good_set().items()}
    arrays["train-images"][[13, 21]] = math.nan
    data = inputs.write_set(tmp_path / "data", arrays, codes={"images": 0x0D})
    store = tmp_path / "artifacts"
    words = [verb, "--data.source", "folder", "--data.path", str(data), "--store", str(store)]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 3
    errors = capsys.readouterr().err
    assert "in 2 images: 13, 21" in errors
    assert "Traceback" not in errors
    assert [path for path in store.rglob("*") if path.is_file()] == []


def test_a_rate_that_is_too_high_ends_the_training_in_that_epoch(tmp_path: Path) -> None:
    """The message has epoch and step; the history has what was measured, and where it ended."""
    device.prepare(RuntimeConfig())
    dataset = inputs.load(inputs.write_set(tmp_path, inputs.good_set()))
    changes = {"steps": 200, "log_every": 2, "batch_size": 32, "learning_rate": 1e6}
    settings = recipes.FAST.model_copy(
        update={"precision": "float32", **changes, "warmup_fraction": 0.0}
    )
    with pytest.raises(fit.DivergedError) as caught:
        fit.fit(dataset, settings, seed=0)
    found = re.search(r"at step (\d+) of 200 \(epoch (\d+)\)", str(caught.value))
    assert found is not None
    step, epoch = int(found[1]), int(found[2])
    assert step < 50
    assert epoch == -(-step * 32 // len(dataset.splits["train"]))
    *before, last = caught.value.history
    assert (last.step, last.status, last.accuracy) == (step, "diverged", None)
    assert {point.status for point in before} <= {"ok"}
    assert all(math.isfinite(point.loss or math.inf) for point in before)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_number_reads_not_available(value: float | None) -> None:
    """In words for tables and pages, whatever asks for it."""
    for shown in (formatting.number(value), formatting.percent(value), formatting.seconds(value)):
        assert shown == "n/a"
    headline = dict.fromkeys(
        ("test_accuracy", "test_accuracy_ci_low", "test_accuracy_ci_high"), value
    )
    (row,) = prefect_ui.metric_rows({**headline, "n_test": 3})
    assert (row["accuracy"], row["95 % interval"]) == ("n/a", "n/a to n/a")
    assert strictly(json.dumps(row)) == row


def test_the_command_never_prints_what_is_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    """NaN that got as far as the output is an error there, not a token for a parser."""
    console.as_json({"loss": 2.5})
    assert strictly(capsys.readouterr().out) == {"loss": 2.5}
    with pytest.raises(ValueError, match="JSON"):
        console.as_json({"loss": math.nan})


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A temporary Prefect server with its own database."""
    with prefect_test_harness(server_startup_timeout=180):
        yield


def shown_in_the_ui() -> list[Any]:
    """Return the data of every artifact that the server has."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return [artifact.data for artifact in client.read_artifacts(limit=200)]


@pytest.mark.slow
def test_a_diverged_run_leaves_the_older_model_and_clean_json(
    server: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run failed, its history says where; every text that a machine reads is JSON."""
    from flows.train_and_explain import train_and_explain

    data = inputs.write_set(tmp_path / "data", inputs.good_set())
    store = tmp_path / "artifacts"
    sections: dict[str, dict[str, Any]] = {
        "data": {"source": "folder", "path": str(data)},
        "train": {"steps": 20, "log_every": 10},
    }
    done = train_and_explain(config.validate(sections), store=store)
    models = {path: path.read_bytes() for path in (store / "store/model").rglob("*.keras")}
    sections["train"]["learning_rate"] = 1e6
    with pytest.raises(fit.DivergedError, match=r"at step \d+ of 20 \(epoch \d"):
        train_and_explain(config.validate(sections), store=store)
    assert models == {path: path.read_bytes() for path in (store / "store/model").rglob("*.keras")}
    assert len(list((store / "store/evaluation").glob("[!.]*"))) == 1
    (failed,) = [path for path in (store / "runs").glob("2*") if path != done]
    record = strictly((failed / "run.json").read_text())
    states = [step["state"] for step in record["steps"]]
    assert (record["status"], states) == ("failed", ["cached", "failed"])
    assert pd.read_parquet(failed / "tables/history.parquet")["status"].iloc[-1] == "diverged"
    strictly((done / "run.json").read_text())
    for item in shown_in_the_ui():
        strictly(item if isinstance(item, str) and item[:1] in "[{" else json.dumps(item))
    plan = ["plan", "--data.source", "folder", "--data.path", str(data)]
    for words in (["runs"], ["show", failed.name], ["show", done.name], plan):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, "--json", "--store", str(store)])
        assert ended.value.code == 0
        assert strictly(capsys.readouterr().out)
