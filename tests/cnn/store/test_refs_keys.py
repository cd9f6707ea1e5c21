"""Refs and keys: how artifacts are named, and how two keys differ."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cnn.store import keys
from cnn.store.keys import Key
from cnn.store.refs import Ref

A, B = "a" * 64, "0123456789abcdef" * 4
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
words = st.text(max_size=5)
values = leaves | words | st.dictionaries(words, leaves, max_size=3) | st.lists(leaves, max_size=3)
components = st.dictionaries(words, values, max_size=5)


def test_a_ref_survives_json_and_is_frozen() -> None:
    """A step reads the same ref that another one returned."""
    ref = Ref(kind="model", key=A, digest=B)
    assert Ref.model_validate_json(ref.model_dump_json()) == ref
    assert str(ref) == f"model {A[:12]}"
    with pytest.raises(ValidationError, match="frozen"):
        ref.key = B


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "../model"},
        {"kind": "checkpoint"},
        {"key": "../" * 20 + "etc/"},
        {"key": A[:-1]},
        {"key": A + "\n"},
        {"digest": A.upper()},
        {"path": "/"},
    ],
)
def test_a_ref_that_names_no_artifact_is_refused(change: dict[str, Any]) -> None:
    """In particular, a ref cannot point outside of the store."""
    with pytest.raises(ValidationError):
        Ref.model_validate({"kind": "model", "key": A, "digest": B} | change)


@given(components)
def test_the_order_of_components_does_not_matter(parts: dict[str, Any]) -> None:
    """Only names and values count."""
    backwards = dict(reversed(parts.items()))
    assert Key("model", parts).digest == Key("model", backwards).digest


@given(components, words, leaves | words, leaves | words)
def test_a_different_value_gives_a_different_key(
    parts: dict[str, Any], name: str, x: Any, y: Any
) -> None:
    """1, 1.0 and true are three different values."""
    one, other = Key("model", {**parts, name: x}), Key("model", {**parts, name: y})
    assert (one.digest == other.digest) == (repr(x) == repr(y))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_key_with_nan_or_infinity_is_refused(value: float) -> None:
    """NaN differs from itself, so no artifact with it in its key could be found again."""
    with pytest.raises(ValueError, match="JSON"):
        _ = Key("model", {"settings": {"x": value}}).digest


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"settings": {"train.seed": 0}}, {"settings": {"train.seed": 1}}, ["train.seed 0 -> 1"]),
        (
            {"settings": {"train.schedule": "linear"}},
            {"settings": {"train.schedule": "cosine"}},
            ["train.schedule linear -> cosine"],
        ),
        ({"settings": {"a": None}}, {"settings": {"a": True}}, ["a null -> true"]),
        ({"settings": {}}, {"settings": {"a": 0.5}}, ["a added (0.5)"]),
        ({"settings": {"a": None}}, {"settings": {}}, ["a removed (was null)"]),
        ({"settings": {"d": {"x": 1}}}, {"settings": {"d": {"x": 2}}}, ["d changed"]),
        ({"inputs": {"dataset": A}}, {"inputs": {"dataset": B}}, ["input dataset changed"]),
        (
            {"code": {"cnn.train.loop": "1", "cnn.train.old": "1"}},
            {"code": {"cnn.train.loop": "2", "cnn.train.new": "1"}},
            [
                "code cnn/train/loop.py changed",
                "code cnn/train/new.py changed",
                "code cnn/train/old.py changed",
            ],
        ),
        ({"tables": {"history": "1"}}, {"tables": {"history": "2"}}, ["table history changed"]),
        ({"versions": {"keras": "3.15"}}, {"versions": {"keras": "3.16"}}, ["keras 3.15 -> 3.16"]),
        ({"settings": {"a": 1}, "step": "x"}, {"settings": {"a": 1}, "step": "x"}, []),
        (
            {"settings": {"a": 1}, "code": {"cnn.a": "1"}, "versions": {"keras": "3"}},
            {"settings": {"a": 2}, "code": {"cnn.a": "2"}, "versions": {"keras": "4"}},
            ["a 1 -> 2", "code cnn/a.py changed", "keras 3 -> 4"],
        ),
    ],
)
def test_differences_are_named_in_phrases(
    old: dict[str, Any], new: dict[str, Any], expected: list[str]
) -> None:
    """Settings come first, with both values."""
    assert keys.differences(old, new) == expected
