"""The command: exit codes, messages, and what it prints."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.flows.conftest import SHORT_WORDS, Command, Finished, idx_folder

IMAGES = np.zeros((4, 28, 28), np.uint8)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


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
    """The message names the setting, the value and the allowed values; nothing is written."""
    code, _, errors = command(verb, *words)
    assert code == 2
    assert message in errors
    assert errors.startswith("error: ")
    assert "Traceback" not in errors
    assert not (tmp_path / "artifacts/store").exists()


def test_bad_data_ends_with_3_before_prefect_starts(command: Command, tmp_path: Path) -> None:
    """A missing folder, a damaged file, missing labels and NaN are named at once."""

    def refused(folder: Path) -> str:
        options = ("--data.source", "folder", "--data.path", str(folder))
        errors = ""
        for verb in ("plan", "run"):
            code, _, errors = command(verb, *options)
            assert code == 3
        return errors

    missing = tmp_path / "no"
    assert refused(missing) == f"error: data.path {missing}: there is no such folder\n"
    folder = idx_folder(tmp_path / "data", IMAGES, range(4))
    victim = folder / "train-images-idx3-ubyte"
    victim.write_bytes(victim.read_bytes()[:-1])
    assert f"{victim}: the header says 4 x 28 x 28" in refused(folder)
    errors = refused(idx_folder(tmp_path / "unequal", IMAGES, range(3)))
    assert "4 images in" in errors
    assert "but 3 labels in" in errors
    damaged = IMAGES.astype(np.float32)
    damaged[[1, 3], 5, 5] = np.nan, -np.inf
    errors = refused(idx_folder(tmp_path / "nan", damaged, range(4)))
    assert "train-images-idx3-ubyte: NaN or infinity in 2 images: 1, 3\n" in errors
    assert "Traceback" not in errors
    assert files(tmp_path / "artifacts") == []


@pytest.mark.parametrize("place", ["", "store", "runs", "downloads"])
def test_an_unwritable_store_ends_with_2(command: Command, tmp_path: Path, place: str) -> None:
    """A file in place of the store or of a folder in it is noticed before training."""
    (tmp_path / "artifacts" / place).parent.mkdir(exist_ok=True)
    (tmp_path / "artifacts" / place).touch()
    code, _, errors = command("run", "--data.source", "digits")
    assert code == 2
    assert "cannot be written (" in errors
    assert "; choose another folder with --store" in errors


def test_a_setting_without_effect_is_refused_before_prefect_starts(
    command: Command, tmp_path: Path
) -> None:
    """Even with an empty store, in which the training would still need its data."""
    for name in ("run", "plan"):
        code, output, errors = command(name, "--data.source", "digits", "--train.momentum", "0.5")
        assert (code, output) == (2, "")
        assert errors.startswith("error: train.momentum: adam does not use it")
    assert files(tmp_path / "artifacts") == []


@pytest.mark.parametrize("source", ["auto", "mnist", "digits"])
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_fetched(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """The message names the setting; MNIST is not fetched and the store stays empty."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    options = ["--data.source", source, "--runtime.device", "gpu"]
    code, output, errors = command("run", *options)
    assert (code, output) == (2, "")
    assert errors.startswith("error: runtime.device: gpu is refused")
    assert files(tmp_path / "artifacts") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"train": 5}', "error: train: 5 is refused; expected an object of settings\n"),
        ('{"train": {"steps": 40, "steps": 50}}', "'steps' appears more than once"),
    ],
)
def test_a_faulty_settings_file_is_refused(
    command: Command, tmp_path: Path, text: str, message: str
) -> None:
    """An option on the command line does not hide a fault in the file."""
    file = tmp_path / "settings.json"
    file.write_text(text)
    code, _, errors = command("plan", "--config", str(file), "--train.steps", "5")
    assert code == 2
    assert message in errors


def test_the_version_is_that_of_the_package(command: Command) -> None:
    """`--version` prints the version of the installed package."""
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
    """It names the old and the new value, and marks the later steps as dependent."""
    words = [*SHORT_WORDS, "--store", str(finished.store), "--json"]
    _, output, _ = command("plan", *words)
    assert {item["state"] for item in json.loads(output)} == {"cached"}
    _, output, _ = command("plan", *words, "--train.learning-rate", "0.002")
    planned = {item["step"]: (item["state"], item["why"]) for item in json.loads(output)}
    assert planned["load_dataset"][0] == "cached"
    assert planned["train_model"] == ("run", "train.learning_rate 0.008 -> 0.002")
    assert planned["write_report"] == ("depends", "depends on train_model")


def test_options_override_a_settings_file(command: Command, tmp_path: Path) -> None:
    """Without an option the file's setting applies."""
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


def test_doctor_checks_everything(command: Command) -> None:
    """Its output covers versions, device, data sources, store and API."""
    code, output, _ = command("doctor", "--json")
    found = {item["name"]: item for item in json.loads(output)}
    assert code == 0
    sources = {f"data {name}" for name in ("mnist", "fashion-mnist", "kmnist", "digits")}
    assert {"tensorflow", "device", *sources, "store", "prefect api"} <= set(found)
    assert found["device"]["detail"].startswith(("cpu: ", "gpu: "))
    assert found["store"]["ok"]
