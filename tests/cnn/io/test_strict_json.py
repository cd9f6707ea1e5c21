"""Strict JSON: what Python's parser accepts beyond JSON is refused, with the reason."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.io import strict_json

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=40)
@given(value=plain, spaces=st.integers(0, 2))
def test_any_json_value_is_read_unchanged(value: Any, spaces: int) -> None:
    """In any layout, with or without escapes."""
    content = json.dumps(value, indent=spaces or None, ensure_ascii=spaces == 1).encode()
    assert strict_json.parse(content) == value
    assert strict_json.load(io.BytesIO(content)) == value


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1} x', "Extra data"),
        (b'{"a": NaN}', "NaN is not a JSON value"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON value"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' appears more than once"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"1" * 5000, "Exceeds the limit"),
    ],
)
def test_invalid_json_is_refused_with_the_reason(content: bytes, expected: str) -> None:
    """Every refusal is a ValueError."""
    with pytest.raises(ValueError, match=expected):
        strict_json.parse(content)


def test_a_document_of_the_maximum_size_is_read_whole() -> None:
    """One byte more is refused and not cut off."""
    content = b"{}" + b" " * (strict_json.MAX_BYTES - 2)
    assert strict_json.load(io.BytesIO(content)) == {}
    with pytest.raises(ValueError, match="larger than 4,194,304 bytes"):
        strict_json.load(io.BytesIO(content + b" "))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[1]", "it is not a JSON object"),
        (b'{"a": 1e999}', "not JSON compliant"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"\\udfff": 1}', "surrogates not allowed"),
    ],
)
def test_a_value_that_cannot_be_written_again_is_refused(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    """A document of the store holds only what every parser accepts."""
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=expected):
        strict_json.read(tmp_path / "x.json")


def test_a_document_of_the_store_is_a_regular_file(tmp_path: Path) -> None:
    """A link, a pipe or a folder is refused; a missing file is FileNotFoundError."""
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert strict_json.read(tmp_path / "x.json") == {"a": 1}
    (tmp_path / "link.json").symlink_to(tmp_path / "x.json")
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("link.json", "pipe.json", "."):
        with pytest.raises(ValueError, match="not a regular file"):
            strict_json.read(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        strict_json.read(tmp_path / "none.json")
