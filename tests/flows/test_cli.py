"""The command: exit codes, messages, and what it prints."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from cnn.data import idx
from flows import cli
from tests.flows.conftest import Finished

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Call the command in this process; returns exit code, output and errors."""
    monkeypatch.setenv("FILTERSCOPE_STORE", str(tmp_path / "artifacts"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str) -> tuple[int, str, str]:
        try:
            cli.main(words)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


def _idx_folder(folder: Path, n_labels: int = 4) -> Path:
    folder.mkdir()
    for part in ("train", "t10k"):
        images = np.zeros((4, 28, 28), np.uint8)
        idx.write(folder / f"{part}-images-idx3-ubyte", images)
        idx.write(folder / f"{part}-labels-idx1-ubyte", np.arange(n_labels, dtype=np.uint8))
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train.recipe", "bogus"], "train.recipe: 'bogus' is refused; expected one of notebook"),
        (["--train.steps", "0"], "train.steps: 0 is refused; expected a whole number >= 1"),
        (["--train.steps", "1.5"], "train.steps: 1.5 is refused"),
        (["--train.steps", "50x"], "train.steps: '50x' is refused"),
        (["--train.learning-rate", "inf"], "train.learning_rate: 'inf' is refused"),
        (["--train.stepz", "3"], "--train.stepz. Did you mean"),
        (["--train.steps"], "--train.steps requires an argument"),
        (["--data.path", "x"], "data.path goes with data.source folder"),
        (["--refresh", "training"], "--refresh training: no such step; steps are load_dataset"),
        (["--config", "missing.json"], "settings file missing.json"),
        (["surplus"], "surplus"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_bad_settings_end_with_2_and_one_message(
    command: Command, tmp_path: Path, verb: str, words: list[str], message: str
) -> None:
    """The message names the setting, the value and what is allowed; nothing is written."""
    code, _, errors = command(verb, *words)
    assert code == 2
    assert message in errors
    assert errors.startswith("error: ")
    assert "Traceback" not in errors
    assert not (tmp_path / "artifacts/store").exists()


def test_bad_data_end_with_3_before_prefect_starts(command: Command, tmp_path: Path) -> None:
    """A missing folder and a damaged file are refused at once, by name."""
    code, _, errors = command("run", "--data.source", "folder", "--data.path", str(tmp_path / "no"))
    assert (code, errors) == (3, f"error: data.path {tmp_path / 'no'}: there is no such folder\n")
    folder = _idx_folder(tmp_path / "data")
    victim = folder / "train-images-idx3-ubyte"
    victim.write_bytes(victim.read_bytes()[:-1])
    code, _, errors = command("run", "--data.source", "folder", "--data.path", str(folder))
    assert code == 3
    assert f"{victim}: the header says 4 x 28 x 28" in errors
    assert not (tmp_path / "artifacts/runs").exists()


def test_an_unwritable_store_ends_with_2(command: Command, tmp_path: Path) -> None:
    """A store below a file cannot be made, and the message says what to do."""
    (tmp_path / "file").write_text("")
    code, _, errors = command(
        "run", "--data.source", "digits", "--store", str(tmp_path / "file/store")
    )
    assert code == 2
    assert "cannot be written (Not a directory); choose another folder with --store" in errors


def test_a_setting_without_effect_is_refused_before_prefect_starts(
    command: Command, tmp_path: Path
) -> None:
    """With an empty store too, where training still waits for its data."""
    for name in ("run", "plan"):
        code, output, errors = command(name, "--data.source", "digits", "--train.momentum", "0.5")
        assert (code, output) == (2, "")
        assert errors.startswith("error: train.momentum: adam does not use it")
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("source", ["auto", "mnist", "digits"])
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_fetched(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """No look for MNIST, no Prefect: the setting is named, and nothing is in the store."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    options = ["--data.source", source, "--runtime.device", "gpu"]
    code, output, errors = command("run", *options)
    assert (code, output) == (2, "")
    assert errors.startswith("error: runtime.device: gpu is refused")
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("part", ["store", "runs", "downloads"])
def test_a_part_of_the_store_that_is_a_file_ends_with_2(
    command: Command, tmp_path: Path, part: str
) -> None:
    """It is noticed before anything is trained."""
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / part).touch()
    code, _, errors = command("run", "--data.source", "digits")
    assert code == 2
    assert "cannot be written" in errors


def test_labels_that_are_not_as_many_as_images_are_refused_before_prefect_starts(
    command: Command, tmp_path: Path
) -> None:
    """What is inside the files is looked at first, and names both files."""
    folder = _idx_folder(tmp_path / "data", n_labels=3)
    code, _, errors = command("run", "--data.source", "folder", "--data.path", str(folder))
    assert code == 3
    assert "4 images in" in errors
    assert "but 3 labels in" in errors


def test_a_section_that_is_no_object_is_named(command: Command, tmp_path: Path) -> None:
    """An option given beside it does not hide the file's fault."""
    file = tmp_path / "settings.json"
    file.write_text('{"train": 5}')
    code, _, errors = command("plan", "--config", str(file), "--train.steps", "5")
    assert (code, errors) == (2, "error: train: 5 is refused; expected an object of settings\n")


def test_a_setting_that_a_file_names_twice_is_refused(command: Command, tmp_path: Path) -> None:
    """Neither value silently wins."""
    file = tmp_path / "settings.json"
    file.write_text('{"train": {"steps": 40, "steps": 50}}')
    code, _, errors = command("plan", "--config", str(file))
    assert code == 2
    assert "'steps' stands there twice" in errors


def test_the_version_is_that_of_the_package(command: Command) -> None:
    """`--version` prints what was installed."""
    assert command("--version")[1].strip() == version("filterscope")


def test_plan_writes_nothing(command: Command, tmp_path: Path) -> None:
    """A plan for an empty store names all steps and leaves no folder."""
    code, output, _ = command("plan", "--data.source", "digits", "--json")
    planned = json.loads(output)
    assert code == 0
    assert planned[0] == {
        "step": "load_dataset",
        "state": "run",
        "why": "no dataset in the store yet",
    }
    assert {item["state"] for item in planned[1:]} == {"depends"}
    assert not (tmp_path / "artifacts").exists()


def test_plan_says_what_a_changed_setting_changes(command: Command, finished: Finished) -> None:
    """Old and new value are named, and the steps behind it wait."""
    words = ["--data.source", "digits", "--train.steps", "60", "--train.log-every", "20"]
    store = ["--store", str(finished.store), "--json"]
    _, output, _ = command("plan", *words, *store)
    assert {item["state"] for item in json.loads(output)} == {"cached"}
    _, output, _ = command("plan", *words, *store, "--train.learning-rate", "0.002")
    planned = {item["step"]: (item["state"], item["why"]) for item in json.loads(output)}
    assert planned["load_dataset"][0] == "cached"
    assert planned["train_model"] == ("run", "train.learning_rate 0.008 -> 0.002")
    assert planned["write_report"] == ("depends", "depends on train_model")


def test_words_rule_over_a_settings_file(command: Command, tmp_path: Path) -> None:
    """The file's settings hold where no option is given."""
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"data": {"source": "digits"}, "train": {"steps": 0, "seed": 3}}))
    code, _, errors = command("plan", "--config", str(file))
    assert (code, "train.steps: 0 is refused" in errors) == (2, True)
    code, _, _ = command("plan", "--config", str(file), "--train.steps", "10")
    assert code == 0


def test_runs_and_show_print_what_was_run(command: Command, finished: Finished) -> None:
    """Both print tables for people and JSON for machines."""
    store = ["--store", str(finished.store)]
    assert finished.folder.name in command("runs", *store)[1]
    names = [item["run"] for item in json.loads(command("runs", *store, "--json")[1])]
    assert finished.folder.name in names
    code, output, _ = command("show", finished.folder.name, *store)
    assert code == 0
    for word in ("train_model", "test accuracy", "report.html", "digits, recipe fast, seed 0"):
        assert word in output
    shown = json.loads(command("show", finished.folder.name, *store, "--json")[1])
    assert shown["run"] == finished.folder.name
    code, _, errors = command("show", "no-such-run", *store)
    assert (code, "no run of that name" in errors) == (2, True)


def test_doctor_looks_at_everything(command: Command) -> None:
    """Versions, device, instruction set, sources, store and API are in its answer."""
    code, output, _ = command("doctor", "--json")
    found = {item["name"]: item for item in json.loads(output)}
    assert code == 0
    sources = {f"data {name}" for name in ("mnist", "fashion-mnist", "kmnist", "digits")}
    assert {"tensorflow", "device", *sources, "store", "prefect api"} <= set(found)
    assert found["device"]["detail"].startswith(("cpu: ", "gpu: "))
    assert found["store"]["ok"]
