"""Settings files and words of the command with any content."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn.config import run as config
from cnn.config import validation
from cnn.config.run import RunConfig
from cnn.errors import ConfigError
from flows import cli
from tests.properties.fuzzing import TOKENS, damaged_bytes, damaged_json, fuzz

EVERY_SETTING = dict(validation.fields(RunConfig))
DOCUMENT: dict[str, Any] = json.loads(RunConfig().model_dump_json())
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def _given(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _given(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@fuzz
@given(data=st.data())
def test_a_settings_file_means_what_it_says_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """No value is replaced, rounded or left out; what is refused is named."""
    text = data.draw(damaged_json(DOCUMENT)).encode("utf-8", "surrogatepass")
    if data.draw(st.integers(0, 3)) == 0:
        text = data.draw(damaged_bytes(json.dumps(DOCUMENT).encode()))
    path = tmp_path_factory.getbasetemp() / "settings.json"
    path.write_bytes(text)
    try:
        read = config.validate(config.read_file(path))
    except ConfigError as error:
        assert 0 < len(str(error)) < 20_000
        return
    taken = dict(_given(json.loads(read.model_dump_json())))
    for name, value in _given(json.loads(text)):
        if name == "data.path" and value is not None:
            continue
        wanted = json.loads(value) if isinstance(value, str) and _is_json(value) else value
        assert taken[name] == wanted
        assert isinstance(taken[name], bool) == isinstance(wanted, bool)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


@fuzz
@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from(sorted(EVERY_SETTING)),
            st.sampled_from([token for token in TOKENS if "\0" not in token])
            | texts
            | st.floats().map(str)
            | st.integers().map(str),
        ),
        min_size=1,
        max_size=3,
    ),
    strange=st.none() | st.tuples(st.sampled_from([["plan"], ["show"], []]), texts),
)
def test_words_of_the_command_end_in_a_plan_or_in_a_message(
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    pairs: list[tuple[str, str]],
    strange: tuple[list[str], str] | None,
) -> None:
    """Exit code 0, 2 or 3, one message, no traceback, nothing written."""
    store = tmp_path_factory.getbasetemp() / "no-store"
    words = ["plan", *(word for name, value in pairs for word in (f"--{name}", value))]
    if strange and strange[1] not in ("run", "doctor"):
        words = [*strange[0], strange[1]]
    try:
        cli.main([*words, "--store", str(store)])
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    errors = capsys.readouterr().err
    assert code in (0, 2, 3)
    assert errors.startswith("error: ") == bool(code)
    assert "Traceback" not in errors
    assert not store.exists()


@pytest.mark.parametrize("value", [None, True, False, math.inf, {"a": None}, [True]])
def test_a_refused_value_is_shown_as_its_user_wrote_it(value: Any) -> None:
    """Neither None nor True stand in a message: JSON has null and true."""
    with pytest.raises(ConfigError) as caught:
        config.validate({"train": {"recipe": value}})
    shown = str(caught.value).split(" is refused")[0]
    assert shown == f"train.recipe: {json.dumps(value)}"
