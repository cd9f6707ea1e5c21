"""Strict reading of JSON documents: settings files, manifests, run records, model configs.

Repeated names, NaN, infinity and endless nesting are refused. Documents are small; a large one
is refused before it fills the memory.
"""

import json
from collections import Counter
from pathlib import Path
from typing import IO, Any

MAX_BYTES = 4 << 20  # bytes; as Python objects a document may take thirty times this


def read(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of the store; links are not followed.

    Raises ValueError, whose message names the problem with the content, or OSError.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError("it is not a regular file")
    with path.open("rb") as stream:
        value = load(stream)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    _refuse_unwritable(value)
    return value


def load(stream: IO[bytes]) -> Any:
    """Return the JSON value in a stream; raises ValueError or OSError."""
    return parse(stream.read(MAX_BYTES + 1))


def parse(content: bytes) -> Any:
    """Return the JSON value that bytes encode; raises ValueError."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
    try:
        return json.loads(
            content.decode("utf-8"),
            parse_constant=refuse_constant,
            object_pairs_hook=_without_repeats,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def refuse_constant(token: str) -> float:
    """Raise ValueError for NaN and Infinity, which Python's JSON parser accepts."""
    raise ValueError(f"{token} is not a JSON value")


def _refuse_unwritable(value: Any) -> None:
    """Raise ValueError for lone surrogates and 1e999, which can be read but not written."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        [(repeated, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{repeated!r} appears more than once")
    return values
