"""Parameters from the command line, a settings file or Prefect's form: taken exactly, or refused.

Sources: PrefectHQ/prefect#16184, #17798; pydantic/pydantic#360.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError

from cnn.config.run import RunConfig
from cnn.data import published
from cnn.errors import ConfigError
from cnn.runs import folders
from flows import cli, local_run
from flows.train_and_explain import train_and_explain
from tasks.runtime.context import RunContext
from tests.cnn.config import test_run
from tests.cnn.config.test_run import EVERY_SETTING, nested, refusal, setting

TEXT = ("train.recipe", "gate.track", "data.source")  # here the word 3 is text, not a number
ACCEPTED = [case for case in test_run.ACCEPTED if case[2] != "date"]  # the command resolves it
REFUSED = [
    (name, value)
    for name, value in test_run.REFUSED
    if (name not in TEXT or isinstance(value, str))
    and not (isinstance(value, float) and not math.isfinite(value))  # a JSON file has no NaN
    and value != "\udcff"
]
UNKNOWN = [("train.epohcs", 3), ("train.stepz", 3), ("trian.steps", 3)]

Door = Callable[[str, Any], RunConfig]


class Started(Exception):  # noqa: N818
    """The command would start the flow now."""


@pytest.fixture(params=["word", "file", "flow"])
def door(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Door:
    """One way for a parameter to come in: returns the run's settings, or raises.

    Nothing starts and nothing is downloaded.
    """
    given: list[RunConfig] = []

    def start(settings: RunConfig, *others: Any) -> Path:
        given.append(settings)
        raise Started

    def command(*words: str) -> RunConfig:
        with pytest.raises(Started):
            cli.main(["run", *words])
        return given[0]

    def by_word(name: str, value: Any) -> RunConfig:
        return command(f"--{name}", value if isinstance(value, str) else json.dumps(value))

    def by_file(name: str, value: Any) -> RunConfig:
        file = tmp_path / "settings.json"
        file.write_text(json.dumps(nested(name, value)))
        return command("--config", str(file))

    def by_flow(name: str, value: Any) -> RunConfig:
        validated = train_and_explain.validate_parameters({"config": nested(name, value)})
        return RunConfig.model_validate(validated["config"])

    monkeypatch.setenv("FILTERSCOPE_STORE", str(tmp_path / "artifacts"))
    monkeypatch.setattr(published, "fetch", lambda *_: pytest.fail("a download began"))
    monkeypatch.setattr(local_run, "train_and_explain", start)
    return {"word": by_word, "file": by_file, "flow": by_flow}[request.param]


def message_of(door: Door, name: str, value: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the user reads when a parameter is refused."""
    try:
        door(name, value)
    except ParameterTypeError as error:
        return str(error)
    except SystemExit as end:
        assert end.code == ConfigError.exit_code == 2
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        return errors
    raise AssertionError(f"{name} {value!r} was accepted")


@pytest.mark.parametrize(("name", "value", "expected"), ACCEPTED)
def test_an_accepted_value_is_in_the_settings_and_in_run_json(
    door: Door, name: str, value: Any, expected: Any, tmp_path: Path
) -> None:
    """With exactly this value and type."""
    settings = door(name, value)
    taken = setting(settings, name)
    assert (taken, type(taken)) == (expected, type(expected))
    run = RunContext(settings, tmp_path / "artifacts")
    _, folder = folders.publish(run.store.runs, run.record({}), {})
    stored = json.loads((folder / "run.json").read_text())
    section, field = name.split(".")
    read = stored["config"][section][field]
    assert (read, type(read)) == (expected, type(expected))
    if section == "train" and expected is not None:
        assert (stored["training"] | {"seed": stored["seed"]})[field] == expected


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=[f"{n} {v!r:.30}" for n, v in REFUSED])
def test_a_refused_value_has_the_same_message_everywhere(
    door: Door, name: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused before any download, and nothing is written."""
    assert refusal(nested(name, value)) in message_of(door, name, value, capsys)
    assert not list(tmp_path.glob("artifacts/*/*"))


@pytest.mark.parametrize(("name", "value"), UNKNOWN)
def test_an_unknown_name_is_refused_with_the_nearest_one(
    door: Door, name: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A typo is never ignored."""
    message = message_of(door, name, value, capsys)
    assert name.replace("_", "-") in message or name.split(".", maxsplit=1)[0] in message
    assert "id you mean" in message
    assert not list(tmp_path.glob("artifacts/*/*"))


def test_prefect_shows_all_refusals() -> None:
    """One bad value does not hide another, and no default replaces it."""
    bad = {"train": {"steps": "7", "seed": -1}, "data": {"source": "x"}}
    with pytest.raises(ParameterTypeError) as caught:
        train_and_explain.validate_parameters({"config": bad})
    for line in ("train.seed: -1 is refused", "data.source: 'x' is refused"):
        assert line in str(caught.value)


def test_prefects_form_has_every_setting_with_its_range() -> None:
    """Its schema has the same names, descriptions and limits."""
    schema = json.dumps(train_and_explain.parameters.model_dump())
    for name, field in EVERY_SETTING.items():
        assert f'"{name.split(".")[1]}"' in schema
        assert json.dumps(field.description) in schema
    assert '"maximum": 10000000' in schema
    assert '"additionalProperties": false' in schema
