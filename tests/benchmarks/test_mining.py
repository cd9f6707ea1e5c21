"""Mining is measured beside those who find the same, and by memory that is no file's."""

import os
import time
from typing import Any, cast

import numpy as np
import pytest

from benchmarks import mining
from benchmarks.peers import tiled
from benchmarks.rounds import Waiting

OURS = [{"7": 3.0, "2": 2.0, "9": 1.0}, {}]


@pytest.mark.parametrize(
    "theirs",
    [
        [{"9": 1.0, "2": 2.0, "7": 3.0}, {}],
        [{"7": 3.00001, "2": 1.99999, "9": 1.0}, {}],
        [{"7": 3.0, "2": 2.0, "4": 1.00001}, {}],
    ],
    ids=["in another order", "rounded", "another that is as strong as the weakest"],
)
def test_what_differs_by_rounding_is_the_same(theirs: mining.Found) -> None:
    """A sum of another order may let the last place go to one that is as strong."""
    mining.check_same(OURS, theirs, "the peer")


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ([{"7": 3.0, "3": 2.0, "9": 1.0}, {}], "filter 0, place 2: the peer has 1.0, we have 2.0"),
        ([{"7": 3.0, "2": 2.1, "9": 1.0}, {}], "filter 0, place 2: the peer has 2.1, we have 2.0"),
        ([{"7": 3.0, "2": 2.0}, {}], "filter 0: the peer found 2 places"),
        ([{"7": 3.0, "2": 2.0, "9": 1.0}, {"1": 0.5}], "filter 1: the peer found 1 places"),
        ([{"7": 3.0, "2": 2.0, "9": 1.0}], "the peer has 1 filters, we have 2"),
    ],
)
def test_who_finds_other_places_is_no_peer(theirs: mining.Found, said: str) -> None:
    """Faster at something else is no comparison."""
    with pytest.raises(AssertionError, match=said):
        mining.check_same(OURS, theirs, "the peer")


def test_a_position_that_does_not_fire_is_not_found() -> None:
    """A sort has k of them in any case; filterscope has no patch of a dead filter."""
    strengths = np.array([[2.5, 0.5], [1.5, 0.0]], np.float32)
    places = np.array([[7, 3], [4, 0]])
    assert tiled.as_found(strengths, places) == [{7: 2.5, 3: 0.5}, {4: 1.5}]


class _Holding:
    """Holds as many MB as it is told for a moment, and lets go of them."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def timed(self, n: int) -> tuple[float, Any]:
        held = np.ones(n * 1_000_000, np.uint8)
        time.sleep(0.5)
        del held
        return 0.5, None


def test_the_peak_is_seen_though_it_is_over_at_the_end() -> None:
    """Memory is looked at while the peer works."""
    one = cast("Waiting", _Holding())
    before = mining.peak_anonymous(one, 0)
    assert 350e6 < mining.peak_anonymous(one, 400) - before < 450e6
