"""Which words become which settings, what is refused, and what is said then."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from cnn.config import run as config
from cnn.config import validation
from cnn.config import values as words
from cnn.config.run import RecipeName, RunConfig, TrainConfig
from cnn.config.training import Training
from cnn.errors import ConfigError
from cnn.train import precision, recipes

EVERY_SETTING = dict(validation.fields(RunConfig))

ACCEPTED = [
    ("train.steps", 3, 3),
    ("train.steps", "3", 3),
    ("train.steps", 3.0, 3),
    ("train.steps", "3.0", 3),
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
REFUSED = [
    ("train.steps", 3.7),
    ("train.steps", "3.7"),
    ("train.steps", True),
    ("train.steps", "true"),
    ("train.steps", "three"),
    ("train.steps", "50x"),
    ("train.steps", ""),
    ("train.steps", "[3]"),
    ("train.steps", '"3"'),
    ("train.steps", 0),
    ("train.steps", -1),
    ("train.steps", 10_000_001),
    ("train.steps", 10**400),
    ("train.steps", "1e999"),
    ("train.steps", math.nan),
    ("train.steps", {"value": "3", "__prefect_kind": "json"}),
    ("train.batch_size", 0),
    ("train.batch_size", "32; 64"),
    ("train.learning_rate", "nan"),
    ("train.learning_rate", "NaN"),
    ("train.learning_rate", "inf"),
    ("train.learning_rate", "Infinity"),
    ("train.learning_rate", "1e999"),
    ("train.learning_rate", math.inf),
    ("train.learning_rate", 10**400),
    ("train.learning_rate", 0),
    ("train.learning_rate", True),
    ("train.conv_bias", "yes"),
    ("train.conv_bias", 1),
    ("train.recipe", "fastest"),
    ("train.seed", None),
    ("train.seed", -1),
    ("train.seed", "today"),
    ("train.seed", True),
    ("gate.track", "../mnist"),
    ("gate.track", ".mnist"),
    ("gate.track", ""),
    ("gate.track", 3),
    ("gate.min_accuracy", 1.01),
    ("gate.max_megabytes", 0),
    ("gate.fail", 1),
    ("data.validation_fraction", 1.0),
    ("data.validation_fraction", -0.1),
    ("data.validation_fraction", "null"),
    ("data.channels", 2),
    ("data.channels", True),
    ("data.transpose", 1),
    ("data.transpose", "yes"),
    ("data.label_column", -1),
    ("data.label_column", 1.5),
    ("data.image_size", 0),
    ("data.image_size", 2000),
    ("data.image_size", "28x28"),
    ("data.image_size", True),
    ("data.image_size", [28]),
    ("data.image_size", "[28, 28, 1]"),
    ("data.image_size", [28, True]),
    ("data.source", "no-such-set"),
    ("data.source", None),
    ("data.source", "\udcff"),
]


def nested(name: str, value: Any) -> dict[str, Any]:
    section, field = name.split(".")
    return {section: {field: value}}


def setting(name: str, value: Any) -> Any:
    section, field = name.split(".")
    return getattr(getattr(config.validate(nested(name, value)), section), field)


def refusal(values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config.validate(values)
    return str(caught.value)


@pytest.mark.parametrize(("name", "given_value", "wanted"), ACCEPTED)
def test_an_accepted_value_becomes_exactly_that_value_and_type(
    name: str, given_value: Any, wanted: Any
) -> None:
    """A word or number that spells a legal value is that value, of the setting's type."""
    value = setting(name, given_value)
    assert (value, type(value)) == (wanted, type(wanted))


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_refusal_names_the_setting_and_what_it_takes(name: str, value: Any) -> None:
    """A value that does not fit is refused in one line, never replaced by a default."""
    message = refusal(nested(name, value))
    assert message.startswith(f"{name}: ")
    assert message.endswith(f"is refused; expected {words.allowed(EVERY_SETTING[name])}")


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("train.steps", 0, "0 is refused; expected a whole number >= 1 and <= 10,000,000"),
        ("data.validation_fraction", "1", "1 is refused; expected a finite number >= 0 and < 1"),
        ("train.learning_rate", 0, "expected a finite number > 0 and <= "),
        ("train.schedule", "x", "'x' is refused; expected one of constant, linear, cosine"),
        ("train.conv_bias", "x", "'x' is refused; expected true or false"),
        ("train.learning_rate", "NaN", "'NaN' is refused; expected a finite number"),
        ("data.path", 3, "3 is refused; expected the path of a folder"),
    ],
)
def test_a_refusal_gives_the_value_received_and_the_range(
    name: str, value: Any, wanted: str
) -> None:
    """The values allowed are said in words, with both ends of the range."""
    assert wanted in refusal(nested(name, value))


@pytest.mark.parametrize("value", ["1e999", math.nan, math.inf, -math.inf])
def test_a_number_without_a_range_is_finite_too(value: Any) -> None:
    """NaN and infinity are refused by what all settings are built on, not by a limit."""

    class Unlimited(config.Settings):
        number: config.Float

    assert Unlimited.model_validate({"number": "-1e300"}).number == -1e300
    with pytest.raises(ValidationError, match="finite"):
        Unlimited.model_validate({"number": value})


@pytest.mark.parametrize("word", ["[" * 100_000, '{"a":' * 100_000])
def test_a_deeply_nested_word_is_refused(word: str) -> None:
    """A word that no JSON reader can follow is a bad value, not a crash."""
    assert refusal(nested("train.steps", word)).startswith("train.steps: ")


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"train": {"stpes": 3}}, "train.stpes: there is no such setting; did you mean train.step"),
        ({"trian": {"steps": 3}}, "trian: there is no such setting; did you mean train?"),
        ({"steps": 3}, "steps: there is no such setting; did you mean train.steps?"),
        ({"train": {"zzzzzzzzzzzz": 3}}, "train.zzzzzzzzzzzz: there is no such setting"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(
    values: dict[str, Any], wanted: str
) -> None:
    """No name is ignored, and a slip of the keyboard is pointed out."""
    assert wanted in refusal(values)


@pytest.mark.parametrize("values", [{"train": 3}, {"train": None}, {"data": "mnist"}, 5, [1]])
def test_a_section_that_is_no_object_is_refused_in_the_users_words(values: Any) -> None:
    """What stands in the place of a section is refused without naming classes of the code."""
    message = refusal(values)
    assert "is refused; expected" in message
    assert "Config" not in message
    assert "Input should be" not in message


def test_all_refusals_stand_in_one_message() -> None:
    """A person mends a settings file once, not once for each bad value."""
    values = {"data": {"source": "x"}, "train": {"steps": 1.5, "sede": 1, "batch_size": True}}
    names = {line.split(":")[0] for line in refusal(values).splitlines()}
    assert names == {"data.source", "train.steps", "train.sede", "train.batch_size"}


@pytest.mark.parametrize("name", EVERY_SETTING)
def test_null_is_legal_exactly_where_the_message_says_so(name: str) -> None:
    """JSON's null and the word that spells it mean the same, and the help tells the truth."""
    optional = words.allowed(EVERY_SETTING[name]).endswith("(or null)")
    for value in [None] if name == "data.path" else [None, "null"]:
        if optional:
            assert setting(name, value) is None
        else:
            assert name in refusal(nested(name, value))


def test_every_setting_is_described() -> None:
    """Help, form and documentation have a text for each setting."""
    assert len(EVERY_SETTING) > len(Training.model_fields)
    assert [name for name, field in EVERY_SETTING.items() if not field.description] == []


def test_settings_are_frozen() -> None:
    """Nothing changes a setting after it was validated."""
    settings = RunConfig()
    with pytest.raises(ValidationError, match="frozen"):
        settings.train.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        settings.train = TrainConfig()


@pytest.mark.parametrize("value", [28, "28", 28.0, [28, 28], "[28, 28]", "[28.0, 28]", (28, 28)])
def test_an_image_size_is_one_side_or_two(value: Any) -> None:
    """A number stands for both sides, in every spelling."""
    own = {"source": "folder", "path": "x", "image_size": value}
    assert config.validate({"data": own}).data.image_size == (28, 28)


@pytest.mark.parametrize(
    ("name", "value"),
    [("label_column", 0), ("transpose", False), ("image_size", 28), ("channels", 1)],
)
def test_settings_of_own_data_go_with_a_folder_only(name: str, value: Any) -> None:
    """A published data set is as it is; null is legal everywhere."""
    own = {"source": "folder", "path": "x", name: value}
    assert getattr(config.validate({"data": own}).data, name) is not None
    assert config.validate({"data": {"source": "digits", name: None}}).data.source == "digits"
    refused = refusal({"data": {"source": "digits", name: value}})
    assert refused == f"data.{name} goes with data.source folder only"


@pytest.mark.parametrize(
    "values",
    [{"source": "folder"}, {"source": "mnist", "path": "x"}, {"source": "auto", "path": "x"}],
)
def test_a_path_goes_with_the_source_folder_only(values: dict[str, Any]) -> None:
    """A path without folder, or folder without a path, is refused."""
    assert "data.path goes with data.source folder" in refusal({"data": values})


def test_a_path_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder means the same wherever the step that reads it runs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for word in ("images", "~/images"):
        read = config.validate({"data": {"source": "folder", "path": word}})
        assert read.data.path == tmp_path / "images"


def test_the_home_of_an_unknown_user_is_refused() -> None:
    """A path below the home folder of nobody is a bad value, not a crash."""
    values = {"data": {"source": "folder", "path": "~no-such-user/images"}}
    assert "data.path" in refusal(values)


@pytest.mark.parametrize(
    ("content", "wanted"),
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
def test_a_settings_file_that_is_no_json_object_is_refused(
    tmp_path: Path, content: bytes | None, wanted: str
) -> None:
    """The message names the file and what was wrong with it."""
    path = tmp_path / "settings.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        config.read_file(path)
    assert f"settings file {path}: " in str(caught.value)
    assert wanted in str(caught.value)


def test_a_settings_file_is_read_as_it_stands(tmp_path: Path) -> None:
    """The values of a file are nested like the settings and validated like words."""
    path = tmp_path / "settings.json"
    path.write_text('{"train": {"steps": 7, "dropout": null}, "data": {"source": "digits"}}')
    read = config.validate(config.read_file(path))
    assert (read.train.steps, read.train.dropout, read.data.source) == (7, None, "digits")


def edges(name: str) -> list[float]:
    """Return the limits of a field of `Training`, and values just beside them."""
    found = [
        getattr(item, end)
        for item in Training.model_fields[name].metadata
        for end in ("ge", "gt", "le", "lt")
        if hasattr(item, end)
    ]
    return [edge + step for edge in found for step in (-1, -1e-9, 0, 1e-9, 1)]


def outcome(model: type[BaseModel], values: dict[str, Any], name: str) -> str | None:
    """Return a field's value after validation, with its type, or None where it is refused."""
    try:
        return repr(getattr(model.model_validate(values), name))
    except ValidationError:
        return None


@given(st.data(), st.sampled_from(sorted(Training.model_fields)))
def test_an_override_takes_exactly_what_a_training_takes(data: st.DataObject, name: str) -> None:
    """Each field of a training is an override with the same reading and the same limits."""
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


def test_every_field_of_a_training_is_an_override_that_is_empty_at_first() -> None:
    """Choosing a recipe sends none of another recipe's numbers."""
    overrides = {
        name: field.default
        for name, field in TrainConfig.model_fields.items()
        if name not in ("recipe", "seed")
    }
    assert overrides == dict.fromkeys(Training.model_fields)
    assert TrainConfig(recipe="best").overrides() == {}


def test_every_recipe_is_a_complete_and_legal_training() -> None:
    """A recipe stands the validation that its overrides stand; none is missing."""
    assert set(recipes.RECIPES) == set(get_args(RecipeName))
    for recipe in recipes.RECIPES.values():
        assert Training.model_validate(recipe.model_dump()) == recipe
        assert recipe.model_dump().keys() == Training.model_fields.keys()


def test_the_notebook_keeps_its_faults_and_spec_mends_them() -> None:
    """The two recipes differ in what the coursework's code does unlike its text."""
    notebook, spec = recipes.NOTEBOOK.model_dump(), recipes.SPEC.model_dump()
    differing = {
        name: (notebook[name], spec[name]) for name in spec if notebook[name] != spec[name]
    }
    assert differing == {
        "conv_bias": (False, True),
        "logits_activation": ("relu", "none"),
        "log_split": ("test", "validation"),
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"momentum": 0.5}, "train.momentum: adam does not use it, but beta1, beta2, epsilon"),
        ({"optimizer": "sgd", "beta1": 0.8}, "train.beta1: sgd does not use it, but momentum"),
        ({"optimizer": "sgd", "epsilon": 0.1}, "train.epsilon: sgd does not use it"),
        ({"optimizer": "rmsprop", "beta1": 0.8}, "train.beta1: rmsprop does not use it"),
        ({"recipe": "spec", "schedule": "one-cycle"}, "train.warmup_fraction: 0 is refused"),
        ({"schedule": "one-cycle", "warmup_fraction": 0.0}, "train.warmup_fraction: 0 is refused"),
    ],
)
def test_an_override_without_effect_is_refused(changes: dict[str, Any], words: str) -> None:
    """Who sets it expects something of it; the message names what would have an effect."""
    with pytest.raises(ConfigError) as caught:
        recipes.resolve(TrainConfig(**changes))
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.5, "optimizer": "sgd"},
        {"momentum": 0.5, "optimizer": "rmsprop", "beta2": 0.9},
        {"beta1": 0.8, "beta2": 0.9, "epsilon": 0.1},
        {"optimizer": "sgd", "weight_decay": 0.1},
        {"schedule": "one-cycle"},
        {"recipe": "best", "steps": 5},
    ],
)
def test_an_override_with_an_effect_is_taken(changes: dict[str, Any]) -> None:
    """Fields of the recipe that the optimizer does not use are no override."""
    resolved = recipes.resolve(TrainConfig(**changes)).model_dump()
    assert resolved.items() >= {k: v for k, v in changes.items() if k != "recipe"}.items()


@pytest.mark.parametrize("recipe", get_args(RecipeName))
def test_overrides_win_over_the_recipe(recipe: RecipeName) -> None:
    """What is set replaces the recipe's value, zero and false too; the rest stays."""
    changes = {"steps": 7, "conv_bias": False, "warmup_fraction": 0.0, "augment_shift": 0.0}
    resolved = recipes.resolve(TrainConfig(recipe=recipe, seed=5, **changes))
    plain = precision.resolved(recipes.RECIPES[recipe])
    assert resolved.model_dump() == plain.model_dump() | changes
    assert recipes.resolve(TrainConfig(recipe=recipe)) == plain


@pytest.mark.parametrize(
    ("moment", "seed"),
    [("2026-03-01T23:59:59+00:00", 20260301), ("2026-03-01T23:30:00-02:00", 20260302)],
)
def test_the_seed_date_is_the_utc_date_of_a_moment(moment: str, seed: int) -> None:
    """Wherever the clock that was read stands; all else stays."""
    asked = config.validate({"train": {"seed": "date", "steps": 7}})
    dated = config.dated(asked, datetime.fromisoformat(moment))
    assert dated == config.validate({"train": {"seed": seed, "steps": 7}})


def test_a_seed_that_is_a_number_is_no_date() -> None:
    """It stays as it is."""
    asked = config.validate({"train": {"seed": 5}})
    assert config.dated(asked, datetime(2026, 3, 1, tzinfo=UTC)) == asked
