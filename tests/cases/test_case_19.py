"""Case 19: parameters through every door become exactly what was given, or are refused by name.

Sources: PrefectHQ/prefect#16184, #17798; pydantic/pydantic#360.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError

from cnn.config import validation
from cnn.config import values as words
from cnn.config.run import RunConfig
from cnn.data import published
from cnn.errors import ConfigError
from cnn.runs import folders
from flows import cli, local_run
from flows.train_and_explain import train_and_explain
from tasks.runtime.context import RunContext

EVERY_SETTING = dict(validation.fields(RunConfig))
WRAPPED = {"value": "3", "__prefect_kind": "json"}

# The public table: its names are placeholders, mapped to ours.
ACCEPTED = [
    ("train.steps", 3, 3),
    ("train.steps", "3", 3),
    ("train.steps", 3.0, 3),
    ("train.batch_size", "64", 64),
    ("train.seed", 0, 0),
    ("train.learning_rate", "1e-3", 0.001),
    ("train.learning_rate", 1, 1.0),
    ("data.validation_fraction", 0.1, 0.1),
]
REFUSED = [
    ("train.steps", 3.7),
    ("train.steps", True),
    ("train.steps", "three"),
    ("train.steps", 0),
    ("train.steps", -1),
    ("train.seed", None),  # null is legal for overrides alone, and means the recipe's value
    ("train.batch_size", 0),
    ("train.batch_size", "32; 64"),
    ("train.learning_rate", "nan"),
    ("train.learning_rate", "inf"),
    ("train.learning_rate", 0),
    ("train.learning_rate", True),
    ("data.validation_fraction", 1.0),
    ("data.validation_fraction", -0.1),
    ("data.source", "no-such-set"),
    ("train.steps", WRAPPED),
    # Variations of the same faults.
    ("data.validation_fraction", None),
    ("train.batch_size", WRAPPED),
    ("train.batch_size", [64]),
    ("train.learning_rate", "1e999"),
    ("train.learning_rate", "1,5"),
    ("train.steps", "3 4"),
    ("train.steps", "0x3"),
    ("train.steps", "3.0000001"),
    ("train.seed", 2**32),
    ("train.conv_bias", 1),
    ("train.conv_bias", "True"),
]
UNKNOWN = [("train.epohcs", 3), ("train.stepz", 3), ("trian.steps", 3)]

Door = Callable[[str, Any], RunConfig]


def nested(name: str, value: Any) -> dict[str, Any]:
    section, field = name.split(".")
    return {section: {field: value}}


def word(value: Any) -> str:
    """Return what one types for a value on a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def as_json(value: Any) -> str:
    """Return the JSON value that a word spells, as JSON has it; "" for any other."""
    try:
        return json.dumps(json.loads(value))
    except (ValueError, TypeError):
        return ""


@pytest.fixture(autouse=True)
def nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No door may reach for the network or start a run."""
    monkeypatch.setenv("FILTERSCOPE_STORE", str(tmp_path / "artifacts"))
    monkeypatch.setattr(published, "fetch", lambda *given: pytest.fail("a download began"))


def started(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> RunConfig:
    """Return the settings with which the command would start the flow."""

    class Started(Exception):  # noqa: N818
        pass

    given: list[RunConfig] = []

    def begin(wanted: RunConfig, *others: Any) -> Path:
        given.append(wanted)
        raise Started

    monkeypatch.setattr(local_run, "train_and_explain", begin)
    with pytest.raises(Started):
        cli.main(["run", *words])
    return given[0]


@pytest.fixture(params=["word", "file", "flow"])
def door(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Door:
    """One of the ways by which parameters come in; returns the settings, or raises."""

    def by_word(name: str, value: Any) -> RunConfig:
        return started(monkeypatch, [f"--{name}", word(value)])

    def by_file(name: str, value: Any) -> RunConfig:
        file = tmp_path / "settings.json"
        file.write_text(json.dumps(nested(name, value)))
        return started(monkeypatch, ["--config", str(file)])

    def by_flow(name: str, value: Any) -> RunConfig:
        validated = train_and_explain.validate_parameters({"config": nested(name, value)})
        return RunConfig.model_validate(validated["config"])

    return {"word": by_word, "file": by_file, "flow": by_flow}[request.param]


def refusal(door: Door, name: str, value: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a user reads when a door refuses a parameter."""
    try:
        door(name, value)
    except ParameterTypeError as error:
        return str(error)
    except SystemExit as end:
        assert end.code == ConfigError.exit_code == 2
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        return errors
    raise AssertionError(f"{name} {value!r} was taken")


@pytest.mark.parametrize(("name", "value", "wanted"), ACCEPTED)
def test_an_accepted_value_is_that_value_in_the_runs_record(
    door: Door, name: str, value: Any, wanted: Any, tmp_path: Path
) -> None:
    """Value and type, in the settings and in the run.json that is on the disk."""
    settings = door(name, value)
    section, field = name.split(".")
    taken = getattr(getattr(settings, section), field)
    assert (taken, type(taken)) == (wanted, type(wanted))
    run = RunContext(settings, tmp_path / "artifacts")
    _, folder = folders.publish(run.store.runs, run.record({}), {})
    stored = json.loads((folder / "run.json").read_text())
    read = stored["config"][section][field]
    assert (read, type(read)) == (wanted, type(wanted))
    if section == "train":
        assert (stored["training"] | {"seed": stored["seed"]})[field] == wanted


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=[f"{n} {v}" for n, v in REFUSED])
def test_a_refused_value_is_named_with_what_is_allowed(
    door: Door, name: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parameter, value and range in one line, before any download; nothing is written."""
    message = refusal(door, name, value, capsys)
    assert f"{name}: " in message
    assert f"is refused; expected {words.allowed(EVERY_SETTING[name])}" in message
    shown = message.split(f"{name}: ")[1].split(" is refused")[0]
    assert shown in (repr(value), json.dumps(value), as_json(value))
    assert ("None" in shown, "True" in shown.replace("'True'", "")) == (False, False)
    assert not list(tmp_path.glob("artifacts/*/*"))


@pytest.mark.parametrize(("name", "value"), UNKNOWN)
def test_an_unknown_name_is_refused(
    door: Door, name: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip of the keyboard is no parameter that silently does nothing."""
    message = refusal(door, name, value, capsys)
    assert name.replace("_", "-") in message or name.split(".", maxsplit=1)[0] in message
    assert "id you mean" in message
    assert not list(tmp_path.glob("artifacts/*/*"))


def test_one_bad_value_resets_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    """All refusals stand in Prefect's message, and no default takes over."""
    values = {"train": {"steps": "7", "seed": -1}, "data": {"source": "x"}}
    with pytest.raises(ParameterTypeError) as caught:
        train_and_explain.validate_parameters({"config": values})
    assert "train.seed: -1 is refused" in str(caught.value)
    assert "data.source: 'x' is refused" in str(caught.value)


def test_null_stands_for_the_recipes_value_of_an_override_only(door: Door) -> None:
    """The one meaning that null has, and every door says so in what is allowed."""
    assert door("train.steps", None).train.steps is None
    assert words.allowed(EVERY_SETTING["train.steps"]).endswith("(or null)")


def test_the_form_of_the_ui_has_every_setting_with_its_range() -> None:
    """What Prefect shows comes from the same declaration: names, descriptions, limits."""
    schema = json.dumps(train_and_explain.parameters.model_dump())
    for name, field in EVERY_SETTING.items():
        assert f'"{name.split(".")[1]}"' in schema
        assert json.dumps(field.description) in schema
    assert '"maximum": 10000000' in schema
    assert '"additionalProperties": false' in schema
