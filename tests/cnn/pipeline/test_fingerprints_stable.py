"""A fingerprint is the same under every Python that is supported."""

import ast
from pathlib import Path

from cnn.pipeline import fingerprints

STABLE = '''
import math

NAMES = {"a": 1, **{}}


def describe(values: list[int], *rest: str, sep: str = ", ", **more: float) -> str:
    """Say it."""
    if (n := len(values)) > 1:
        return f"{n:,} {', '.join(str(v) for v in values)} {NAMES['a']!r:>{n}} {{}}" "tail"
    match values:
        case [one] | (one, _):
            return f"{one} " f'{"x" if one else "y"}'
        case {"k": 1, **left}:
            return str(left)
    try:
        values.sort(key=lambda x, /, y=1: x + y)
    except* ValueError:
        raise
    finally:
        with open("a") as f, open("b"):
            pass
'''
DIGEST = "ebfb3872168084d8"


def test_code_has_one_fingerprint_under_every_python() -> None:
    """The digest below was computed under 3.11, 3.12 and 3.13."""
    assert fingerprints._digest(ast.parse(STABLE), Path("stable.py")) == DIGEST
