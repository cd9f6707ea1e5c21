"""What the fuzz tests share: how many inputs they try, and how bytes and JSON are damaged.

FILTERSCOPE_FUZZ_EXAMPLES sets the number of inputs for each test; without it they are few
and the same each time.
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
# JSON as it may stand in a file, values that no writer of ours makes among it.
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


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for name, part in items:
        found.append((*here, name))
        if isinstance(part, dict | list):
            found += places(part, (*here, name))
    return found


@st.composite
def damaged_json(draw: st.DrawFn, document: dict[str, Any]) -> str:
    """Return the text of a document with some fields replaced, removed, added or repeated."""
    changed, tokens = copy.deepcopy(document), {}
    for i in range(draw(st.integers(1, 3))):
        *parents, name = draw(st.sampled_from(places(document)))
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
    if draw(st.integers(0, 9)) == 0:  # a field that stands there twice
        text = text[:-1] + f", {json.dumps(draw(st.sampled_from(sorted(document))))}: 1}}"
    return text


def _has(parent: Any, name: Any) -> bool:
    if isinstance(parent, dict):
        return name in parent
    return isinstance(parent, list) and isinstance(name, int) and name < len(parent)


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Return bytes that are cut, changed, doubled or mixed with others."""
    made = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(made)))
        what = draw(st.sampled_from(["flip", "flip", "set", "cut", "drop", "insert", "repeat"]))
        if what == "flip" and at < len(made):
            made[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "set":
            new = draw(st.sampled_from([b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1"]))
            made[at : at + len(new)] = new
        elif what == "cut":
            del made[at:]
        elif what == "drop":
            del made[at : at + draw(st.integers(1, 16))]
        elif what == "insert":
            made[at:at] = draw(st.binary(min_size=1, max_size=16))
        else:
            made += made[at:]
    return bytes(made)
