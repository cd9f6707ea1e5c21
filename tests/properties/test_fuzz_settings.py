"""Settings files and command lines with arbitrary content."""

import json
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


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _parsed(value: Any) -> Any:
    """Return a text parsed as JSON, or any other value as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


@fuzz
@given(data=st.data())
def test_a_settings_file_is_taken_exactly_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """No value is replaced, rounded or ignored; a refusal has a message."""
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
    taken = dict(_flat(json.loads(read.model_dump_json())))
    for name, value in _flat(json.loads(text)):
        if name != "data.path" or value is None:
            assert taken[name] == _parsed(value)
            assert isinstance(taken[name], bool) == isinstance(_parsed(value), bool)


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
def test_a_command_line_ends_in_a_plan_or_in_a_message(
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    pairs: list[tuple[str, str]],
    strange: tuple[list[str], str] | None,
) -> None:
    """Exit code 0, 2 or 3, one message, no traceback, and nothing is written."""
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
