"""The paired difference of two models: exact McNemar test and Clopper-Pearson interval."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn.evaluate import paired


@given(st.integers(0, 60), st.integers(0, 60))
def test_p_and_interval_follow_from_the_binomial_distribution(n_gained: int, n_lost: int) -> None:
    """Of 200 images; p sums the outcomes that are at most as likely as this one.

    At each end of the interval, this outcome or a more extreme one has a probability of 2.5 %.
    """
    theirs, ours = np.ones(200, bool), np.ones(200, bool)
    theirs[:n_gained] = False
    ours[n_gained : n_gained + n_lost] = False
    found, n = paired.difference(ours, theirs), n_gained + n_lost
    assert (found.n_gained, found.n_lost, found.n) == (n_gained, n_lost, 200)
    weights = [comb(n, k) for k in range(n + 1)]
    p = sum(weight for weight in weights if weight <= weights[n_gained]) / 2**n
    assert found.p == pytest.approx(p, rel=1e-9)
    assert found.low <= found.mean <= found.high

    def probability(end: float, outcomes: range) -> float:
        share = (end * 200 / n + 1) / 2
        return sum(comb(n, k) * share**k * (1 - share) ** (n - k) for k in outcomes)

    if n_gained:
        at_low = probability(found.low, range(n_gained, n + 1))
        assert at_low == pytest.approx(0.025, rel=1e-6)
    if n_lost:
        at_high = probability(found.high, range(n_gained + 1))
        assert at_high == pytest.approx(0.025, rel=1e-6)
    if not n:
        assert (found.p, found.low, found.high) == (1.0, 0.0, 0.0)
