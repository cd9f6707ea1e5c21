"""Compare the predictions of two models on the same images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class Difference:
    """The difference between two models on the same n images: images gained and lost, and a test.

    p: exact two-sided McNemar test (McNemar 1947), binomial over the images that only one of the
    models gets right. low, high: 95 % interval of the difference in accuracy, from the exact
    interval (Clopper and Pearson 1934) of the share of gained images among these.
    """

    n: int
    n_gained: int
    n_lost: int
    p: float
    low: float
    high: float

    @property
    def mean(self) -> float:
        """The difference in accuracy, a fraction."""
        return (self.n_gained - self.n_lost) / self.n


def difference(hits: Hits, earlier: Hits) -> Difference:
    """Return how a model differs from an earlier one; hits, earlier: right or not, (n,), n > 0."""
    from scipy import stats  # the import takes most of a second

    n_gained, n_lost = int((hits & ~earlier).sum()), int((~hits & earlier).sum())
    n_apart = n_gained + n_lost
    if not n_apart:
        return Difference(len(hits), 0, 0, 1.0, 0.0, 0.0)
    test = stats.binomtest(n_gained, n_apart)
    low, high = (
        n_apart / len(hits) * (2 * end - 1)
        for end in test.proportion_ci(confidence_level=0.95, method="exact")
    )
    return Difference(len(hits), n_gained, n_lost, float(test.pvalue), float(low), float(high))
