"""Format numbers, durations and sizes for people."""

import math
from collections.abc import Iterable
from typing import Any


def number(value: float | None, pattern: str = ",.4g") -> str:
    """Return a number as text; "n/a" for null, NaN and infinity."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return format(value, pattern)


def percent(value: Any, digits: int = 2) -> str:
    """Return a fraction as a percentage; "n/a" for null, NaN and infinity."""
    shown = number(None if value is None else 100 * value, f".{digits}f")
    return shown if shown == "n/a" else f"{shown} %"


def seconds(value: float | None) -> str:
    """Return a duration such as "0.4 s", "12 s" or "3 min 20 s"; "n/a" if it is unknown."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if value < 10:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size_words(shape: Iterable[int]) -> str:
    """Return the shape of an array as text: "28 x 28 x 1"."""
    return " x ".join(map(str, shape))
