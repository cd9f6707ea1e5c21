"""Shared by the fuzz tests: the number of inputs, and strategies for damaged bytes and JSON.

FILTERSCOPE_FUZZ_EXAMPLES sets the number of inputs per test; without it there are few, and the
same ones in every run.
"""

import copy
import json
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

N_EXAMPLES = os.environ.get("FILTERSCOPE_FUZZ_EXAMPLES")
fuzz = settings(
    max_examples=int(N_EXAMPLES or 60),
    derandomize=N_EXAMPLES is None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

DEEP = 5000
# JSON values as they may occur in a file, including ones that filterscope never writes.
TOKENS = (
    *("null", "true", "false", "0", "-1", "1.5", "-0.0", "3.0", "1e308", "1e999", "NaN"),
    *("Infinity", str(2**63), str(-(2**63)), "1" * 400, "1" * DEEP, "", "[", "'x'"),
    *('""', '"x"', '"3"', '"null"', '"../../x"', '"/etc/passwd"', '"a\\u0000b"', '"\\ud800"'),
    *('"\\ud83d\\ude00"', '"ü"', '"."', '".."', '"manifest.json"', '"a/b"', f'"{"y" * DEEP}"'),
    *("[]", "{}", "[[]]", '{"a": 1, "a": 2}', '{"": null}', "[" * DEEP + "]" * DEEP),
    '{"a":' * DEEP + "1" + "}" * DEEP,
    *('"2026-01-01T00:00:00"', '"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59-14:00"'),
    *("1e11", "-1e11", '"2026-02-30T00:00:00Z"', '"model"', '"dataset"', f'"{"a" * 64}"'),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.sampled_from(TOKENS) | st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)
).map(json.dumps)


def paths(value: Any, parents: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every part of a JSON value, as keys and indices."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    result = []
    for name, part in items:
        result.append((*parents, name))
        if isinstance(part, dict | list):
            result += paths(part, (*parents, name))
    return result


@st.composite
def damaged_json(draw: st.DrawFn, document: dict[str, Any]) -> str:
    """Return the text of a document with some fields replaced, removed, added or repeated."""
    changed, tokens = copy.deepcopy(document), {}
    for i in range(draw(st.integers(1, 3))):
        *parents, name = draw(st.sampled_from(paths(document)))
        parent: Any = changed
        for part in parents:
            parent = parent[part] if _has(parent, part) else {}
        if not _has(parent, name):
            continue
        what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if what == "remove":
            del parent[name]
        elif what == "add" and isinstance(parent, dict):
            tokens[f"@{i}@"] = draw(values)
            parent[draw(st.text(max_size=5))] = f"@{i}@"
        else:
            tokens[f"@{i}@"] = draw(values)
            parent[name] = f"@{i}@"
    text = json.dumps(changed)
    for mark, token in tokens.items():
        text = text.replace(f'"{mark}"', token)
    if draw(st.integers(0, 9)) == 0:  # a repeated field
        text = text[:-1] + f", {json.dumps(draw(st.sampled_from(sorted(document))))}: 1}}"
    return text


def _has(parent: Any, name: Any) -> bool:
    if isinstance(parent, dict):
        return name in parent
    return isinstance(parent, list) and isinstance(name, int) and name < len(parent)


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Return bytes that are cut, changed, repeated or mixed with others."""
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(damaged)))
        what = draw(st.sampled_from(["flip", "flip", "set", "cut", "drop", "insert", "repeat"]))
        if what == "flip" and at < len(damaged):
            damaged[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "set":
            new = draw(st.sampled_from([b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1"]))
            damaged[at : at + len(new)] = new
        elif what == "cut":
            del damaged[at:]
        elif what == "drop":
            del damaged[at : at + draw(st.integers(1, 16))]
        elif what == "insert":
            damaged[at:at] = draw(st.binary(min_size=1, max_size=16))
        else:
            damaged += damaged[at:]
    return bytes(damaged)
