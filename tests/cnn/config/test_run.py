"""Which values the settings accept, what they become, and the messages for refused ones."""

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from cnn.config import run as config
from cnn.config import validation, values
from cnn.config.run import RunConfig, TrainConfig
from cnn.config.training import Training
from cnn.errors import ConfigError
from cnn.train import recipes

EVERY_SETTING = dict(validation.fields(RunConfig))
WRAPPED = {"value": "3", "__prefect_kind": "json"}  # PrefectHQ/prefect#16184

# tests/flows/test_parameters.py passes these through command line, settings file and flow too.
ACCEPTED = [
    ("train.steps", 3, 3),
    ("train.steps", "3", 3),
    ("train.steps", 3.0, 3),
    ("train.steps", "3.0", 3),
    ("train.steps", None, None),
    ("train.batch_size", "64", 64),
    ("train.seed", 0, 0),
    ("train.seed", "date", "date"),
    ("gate.track", "mnist-best", "mnist-best"),
    ("gate.track", "null", None),
    ("gate.max_megabytes", "12.5", 12.5),
    ("gate.fail", "true", True),
    ("train.learning_rate", "1e-3", 0.001),
    ("train.learning_rate", 1, 1.0),
    ("data.validation_fraction", 0.1, 0.1),
    ("train.conv_bias", "false", False),
    ("train.schedule", "cosine", "cosine"),
    ("runtime.threads", "2", 2),
    ("data.channels", "null", None),
]
_REFUSED: dict[str, list[Any]] = {
    "train.steps": [
        *(3.7, "3.7", "3.0000001", True, "true", "three", "50x", "0x3", "3 4", "", "[3]", '"3"'),
        *(0, -1, 10_000_001, 10**400, "1e999", math.nan, "[" * 100_000, '{"a":' * 100_000, WRAPPED),
    ],
    "train.batch_size": [0, "32; 64", [64]],
    "train.learning_rate": [
        *("nan", "NaN", "inf", "Infinity", "1e999", "1,5", math.inf, 10**400, 0, True),
    ],
    "train.conv_bias": ["yes", "True", 1],
    "train.recipe": ["fastest", None, True, {"a": None}, [True]],
    "train.seed": [None, -1, 2**32, "today", True],
    "gate.track": ["../mnist", ".mnist", "", 3],
    "gate.min_accuracy": [1.01],
    "gate.max_megabytes": [0],
    "gate.fail": [1],
    "data.validation_fraction": [1.0, -0.1, None, "null"],
    "data.channels": [2],
    "data.transpose": [1, "yes"],
    "data.label_column": [-1, 1.5],
    "data.image_size": [0, 2000, "28x28", True, [28], "[28, 28, 1]"],
    "data.source": ["no-such-set", None, "\udcff"],
}
REFUSED = [(name, value) for name, bad in _REFUSED.items() for value in bad]


def nested(name: str, value: Any) -> dict[str, Any]:
    section, field = name.split(".")
    return {section: {field: value}}


def setting(settings: RunConfig, name: str) -> Any:
    section, field = name.split(".")
    return getattr(getattr(settings, section), field)


def refusal(settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config.validate(settings)
    return str(caught.value)


def spellings(value: Any) -> list[str]:
    """Return how a message may show a value: as JSON, or as the JSON value that a word spells."""
    shown = [repr(value) if isinstance(value, str) else json.dumps(value)]
    try:
        parsed = json.loads(value)
        shown.append(repr(parsed) if isinstance(parsed, str) else json.dumps(parsed))
    except (ValueError, TypeError, RecursionError):
        pass
    return shown


@pytest.mark.parametrize(("name", "value", "expected"), ACCEPTED)
def test_an_accepted_value_becomes_exactly_that_value_and_type(
    name: str, value: Any, expected: Any
) -> None:
    """A word or number that spells a legal value gets the type of the setting."""
    parsed = setting(config.validate(nested(name, value)), name)
    assert (parsed, type(parsed)) == (expected, type(expected))


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=[f"{n} {v!r:.30}" for n, v in REFUSED])
def test_a_refused_value_is_named_with_the_values_allowed(name: str, value: Any) -> None:
    """One line with setting, value as the user wrote it, and range; no default replaces it."""
    message = refusal(nested(name, value))
    start, end = f"{name}: ", f" is refused; expected {values.allowed(EVERY_SETTING[name])}"
    assert message.startswith(start)
    assert message.endswith(end)
    shown = message.removeprefix(start).removesuffix(end)
    assert shown in [text if len(text) <= 80 else f"{text[:80]}..." for text in spellings(value)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (nested("train.steps", 0), "0 is refused; expected a whole number >= 1 and <= 10,000,000"),
        (nested("data.validation_fraction", "1"), "1 is refused; expected a finite number >= 0 an"),
        (nested("train.learning_rate", 0), "expected a finite number > 0 and <= "),
        (nested("train.schedule", "x"), "'x' is refused; expected one of constant, linear, cosine"),
        (nested("train.conv_bias", "x"), "'x' is refused; expected true or false"),
        (nested("train.learning_rate", "NaN"), "'NaN' is refused; expected a finite number"),
        (nested("data.path", 3), "3 is refused; expected the path of a folder"),
        (nested("data.channels", True), "data.channels: 'true' is refused; expected one of 1, 3"),
        (nested("data.image_size", [28, True]), "data.image_size: true is refused; expected one"),
        ({"train": {"stpes": 3}}, "train.stpes: there is no such setting; did you mean train.step"),
        ({"trian": {"steps": 3}}, "trian: there is no such setting; did you mean train?"),
        ({"steps": 3}, "steps: there is no such setting; did you mean train.steps?"),
        ({"train": {"zzzzzzzzzzzz": 3}}, "train.zzzzzzzzzzzz: there is no such setting"),
        ({"train": 3}, "train: 3 is refused; expected an object of settings"),
        ({"train": None}, "train: null is refused; expected an object of settings"),
        ({"data": "mnist"}, "data: 'mnist' is refused; expected an object of settings"),
        (5, "settings: 5 is refused; expected an object of settings"),
        ([1], "settings: [1] is refused; expected an object of settings"),
        ({"data": {"source": "folder"}}, "data.path goes with data.source folder"),
        ({"data": {"source": "mnist", "path": "x"}}, "data.path goes with data.source folder"),
        ({"data": {"source": "auto", "path": "x"}}, "data.path goes with data.source folder"),
        ({"data": {"source": "folder", "path": "~no-such-user/x"}}, "data.path: '~no-such-user/x'"),
    ],
)
def test_a_message_says_what_is_wrong_and_what_is_expected(settings: Any, expected: str) -> None:
    """Ranges with both ends, the nearest name for a typo, no class names of the code."""
    message = refusal(settings)
    assert expected in message
    assert "Config" not in message
    assert "Input should be" not in message


def test_all_refusals_are_in_one_message() -> None:
    """A user can correct a settings file in one go."""
    bad = {"data": {"source": "x"}, "train": {"steps": 1.5, "sede": 1, "batch_size": True}}
    names = {line.split(":")[0] for line in refusal(bad).splitlines()}
    assert names == {"data.source", "train.steps", "train.sede", "train.batch_size"}


@pytest.mark.parametrize("value", ["1e999", math.nan, math.inf, -math.inf])
def test_a_number_without_a_range_must_be_finite(value: Any) -> None:
    """The base of all settings refuses NaN and infinity, not a limit."""

    class Unlimited(config.Settings):
        number: config.Float

    assert Unlimited.model_validate({"number": "-1e300"}).number == -1e300
    with pytest.raises(ValidationError, match="finite"):
        Unlimited.model_validate({"number": value})


@pytest.mark.parametrize("name", EVERY_SETTING)
def test_null_is_legal_exactly_where_the_help_says_so(name: str) -> None:
    """JSON's null and the word null mean the same."""
    optional = values.allowed(EVERY_SETTING[name]).endswith("(or null)")
    for value in [None] if name == "data.path" else [None, "null"]:
        if optional:
            assert setting(config.validate(nested(name, value)), name) is None
        else:
            assert name in refusal(nested(name, value))


def test_every_setting_has_a_description() -> None:
    """Help and Prefect's form show it."""
    assert len(EVERY_SETTING) > len(Training.model_fields)
    assert [name for name, field in EVERY_SETTING.items() if not field.description] == []


def test_settings_are_frozen() -> None:
    """Neither a setting nor a section can be replaced."""
    settings = RunConfig()
    with pytest.raises(ValidationError, match="frozen"):
        settings.train.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        settings.train = TrainConfig()


@pytest.mark.parametrize("value", [28, "28", 28.0, [28, 28], "[28, 28]", "[28.0, 28]", (28, 28)])
def test_an_image_size_is_one_side_or_two(value: Any) -> None:
    """A single number gives both sides."""
    folder = {"source": "folder", "path": "x", "image_size": value}
    assert config.validate({"data": folder}).data.image_size == (28, 28)


@pytest.mark.parametrize(
    ("name", "value"),
    [("label_column", 0), ("transpose", False), ("image_size", 28), ("channels", 1)],
)
def test_settings_of_own_data_need_a_folder(name: str, value: Any) -> None:
    """A published data set is used as it is; null is legal everywhere."""
    folder = {"source": "folder", "path": "x", name: value}
    assert getattr(config.validate({"data": folder}).data, name) is not None
    assert config.validate({"data": {"source": "digits", name: None}}).data.source == "digits"
    message = refusal({"data": {"source": "digits", name: value}})
    assert message == f"data.{name} goes with data.source folder only"


def test_a_path_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It means the same folder wherever the step that reads it runs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for word in ("images", "~/images"):
        settings = config.validate({"data": {"source": "folder", "path": word}})
        assert settings.data.path == tmp_path / "images"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "a JSON object is expected"),
        (b'{"train": ', "a JSON object is expected"),
        (b"[1]", "a JSON object is expected at the top"),
        (b"3", "a JSON object is expected at the top"),
        (b'{"train": {"learning_rate": NaN}}', "NaN is not a JSON value"),
        (b'{"train": {"learning_rate": -Infinity}}', "-Infinity is not a JSON value"),
        (b'{"a": "\xff"}', "a JSON object is expected"),
        (b"[" * 100_000, "a JSON object is expected"),
        (None, "No such file"),
    ],
)
def test_a_settings_file_without_a_json_object_is_refused(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    """The message names the file and the problem."""
    path = tmp_path / "settings.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        config.read_file(path)
    assert f"settings file {path}: " in str(caught.value)
    assert expected in str(caught.value)


def edges(name: str) -> list[float]:
    """Return the limits of a field of `Training`, and values on both sides of them."""
    limits = [
        getattr(item, end)
        for item in Training.model_fields[name].metadata
        for end in ("ge", "gt", "le", "lt")
        if hasattr(item, end)
    ]
    return [limit + step for limit in limits for step in (-1, -1e-9, 0, 1e-9, 1)]


def outcome(model: type[BaseModel], fields: dict[str, Any], name: str) -> str | None:
    """Return a field's value after validation, with its type, or None if it is refused."""
    try:
        return repr(getattr(model.model_validate(fields), name))
    except ValidationError:
        return None


@given(st.data(), st.sampled_from(sorted(Training.model_fields)))
def test_an_override_accepts_exactly_what_a_training_accepts(
    data: st.DataObject, name: str
) -> None:
    """Every field of a training is an override with the same parsing and the same limits."""
    value = data.draw(
        st.sampled_from([*edges(name), "relu", "constant", "test", "true"])
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.floats().map(str)
    )
    assume(str(value).strip() != "null")
    complete = {**recipes.FAST.model_dump(), name: value}
    assert outcome(TrainConfig, {name: value}, name) == outcome(Training, complete, name)


def test_every_field_of_a_training_is_an_override_that_is_empty_by_default() -> None:
    """Choosing a recipe in the form does not send another recipe's values."""
    assert TrainConfig(recipe="best").overrides() == {}
    defaults = TrainConfig().model_dump(exclude={"recipe", "seed"})
    assert defaults == dict.fromkeys(Training.model_fields)


@pytest.mark.parametrize(
    ("seed", "moment", "expected"),
    [
        ("date", "2026-03-01T23:59:59+00:00", 20260301),
        ("date", "2026-03-01T23:30:00-02:00", 20260302),
        (5, "2026-03-01T00:00:00+00:00", 5),
    ],
)
def test_the_seed_date_becomes_the_utc_date(seed: Any, moment: str, expected: int) -> None:
    """In any time zone; other seeds and settings stay."""
    settings = config.validate({"train": {"seed": seed, "steps": 7}})
    dated = config.dated(settings, datetime.fromisoformat(moment))
    assert dated == config.validate({"train": {"seed": expected, "steps": 7}})
