"""Numbers, durations and sizes as text."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnn import formatting


@pytest.mark.parametrize("write", [formatting.number, formatting.percent, formatting.seconds])
@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
def test_unknown_values_read_na(write: Callable[[Any], str], value: Any) -> None:
    """None, NaN and infinity, as number, percentage and duration."""
    assert write(value) == "n/a"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formatting.number(0.00123456), "0.001235"),
        (formatting.number(12345678), "1.235e+07"),
        (formatting.number(1.5, ".3f"), "1.500"),
        (formatting.number(np.float32(2)), "2"),
        (formatting.percent(0.98765), "98.77 %"),
        (formatting.percent(1), "100.00 %"),
        (formatting.percent(0), "0.00 %"),
        (formatting.percent(0.5, 1), "50.0 %"),
        (formatting.seconds(0.44), "0.4 s"),
        (formatting.seconds(12.3), "12 s"),
        (formatting.seconds(59.7), "1 min 00 s"),
        (formatting.seconds(200), "3 min 20 s"),
    ],
)
def test_numbers_are_rounded_and_have_a_unit(shown: str, expected: str) -> None:
    """Four significant digits, per cent, seconds and minutes."""
    assert shown == expected
