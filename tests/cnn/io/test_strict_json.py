"""JSON documents: what Python's reader takes beyond JSON is refused, each with its reason."""

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
def test_json_is_read_as_it_stands(value: Any, spaces: int) -> None:
    """Whatever a writer wrote, in any layout."""
    content = json.dumps(value, indent=spaces or None, ensure_ascii=spaces == 1).encode()
    assert strict_json.parse(content) == value
    assert strict_json.load(io.BytesIO(content)) == value


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1} x', "Extra data"),
        (b'{"a": NaN}', "NaN is not a JSON value"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON value"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands there twice"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"1" * 5000, "Exceeds the limit"),
        (b" " * (strict_json.MAX_BYTES + 1), "larger than 4,194,304 bytes"),
    ],
)
def test_what_is_no_json_is_refused_with_its_reason(content: bytes, wanted: str) -> None:
    """Every reason is a ValueError in words."""
    with pytest.raises(ValueError, match=wanted):
        strict_json.parse(content)


def test_a_document_is_not_cut_where_reading_ends() -> None:
    """The largest is read, and one byte more is refused, not left out."""
    content = b"{}" + b" " * (strict_json.MAX_BYTES - 2)
    assert strict_json.load(io.BytesIO(content)) == {}
    with pytest.raises(ValueError, match="larger than"):
        strict_json.load(io.BytesIO(content + b" "))


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"[1]", "it is no JSON object"),
        (b'{"a": 1e999}', "not JSON compliant"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"\\udfff": 1}', "surrogates not allowed"),
    ],
)
def test_what_could_not_be_written_again_is_refused(
    tmp_path: Path, content: bytes, wanted: str
) -> None:
    """A document of the store holds only what every reader takes."""
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=wanted):
        strict_json.read(tmp_path / "x.json")


def test_a_document_of_the_store_is_a_plain_file(tmp_path: Path) -> None:
    """No link, no pipe, no folder; a missing one is missing."""
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert strict_json.read(tmp_path / "x.json") == {"a": 1}
    (tmp_path / "link.json").symlink_to(tmp_path / "x.json")
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("link.json", "pipe.json", "."):
        with pytest.raises(ValueError, match="no plain file"):
            strict_json.read(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        strict_json.read(tmp_path / "none.json")
