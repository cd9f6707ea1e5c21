"""The gate: which checks a model must pass to be promoted, from hits on validation images.

The test images never decide.
"""

from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.config.run import GateConfig
from cnn.evaluate import paired
from cnn.evaluate.paired import Hits
from cnn.runs.records import Check, Figures

SIGNIFICANT = 0.05  # McNemar's p below which a loss is no chance


def recalls(labels: NDArray[np.int64], hits: Hits, n_classes: int) -> NDArray[np.float64]:
    """Return the share of each class's images that are right, NaN for a class without images."""
    support = np.bincount(labels, minlength=n_classes)
    right = np.bincount(labels[hits], minlength=n_classes)
    shares: NDArray[np.float64] = np.divide(
        right, support, out=np.full(n_classes, nan), where=support > 0
    )
    return shares


def floor(
    labels: NDArray[np.int64], hits: Hits, names: tuple[str, ...], limits: GateConfig
) -> list[Check]:
    """Return the checks that need no other model: accuracy, and the recall of every class."""
    if not len(hits):
        return [Check(name="validation images", passed=False, found="none", wanted="at least one")]
    accuracy = hits.sum() / len(hits)
    recall = recalls(labels, hits, len(names))
    worst = int(np.nanargmin(recall))
    return [
        Check(
            name="accuracy",
            passed=bool(accuracy >= limits.min_accuracy),
            found=f"{100 * accuracy:.2f} % of {len(hits):,} images",
            wanted=f"at least {100 * limits.min_accuracy:.4g} %",
        ),
        Check(
            name="class recall",
            passed=bool(recall[worst] >= limits.min_recall),
            found=f"{names[worst]}: {100 * recall[worst]:.2f} %, the lowest",
            wanted=f"at least {100 * limits.min_recall:.4g} %",
        ),
    ]


def comparison(
    labels: NDArray[np.int64],
    hits: Hits,
    earlier: Hits,
    names: tuple[str, ...],
    limits: GateConfig,
) -> tuple[list[Check], Figures]:
    """Return the checks against the promoted model, image by image, and their figures."""
    found = paired.difference(hits, earlier)
    drop = recalls(labels, earlier, len(names)) - recalls(labels, hits, len(names))
    worst = int(np.nanargmax(drop))
    significant = found.n_lost > found.n_gained and found.p < SIGNIFICANT
    checks = [
        Check(
            name="McNemar test",
            passed=not significant,
            found=f"{found.n_gained} gained, {found.n_lost} lost of {found.n:,} images, "
            f"p {_probability(found.p)}",
            wanted=f"p >= {SIGNIFICANT}, or more gained",
        ),
        Check(
            name="accuracy drop",
            passed=found.low > -limits.max_accuracy_drop,
            found=_interval(found, limits.max_accuracy_drop),
            wanted=f"lower end > {_points(-limits.max_accuracy_drop)} points",
        ),
        Check(
            name="class recall drop",
            passed=bool(drop[worst] <= limits.max_recall_drop),
            found=f"{names[worst]}: {_points(-drop[worst])} points, the largest loss",
            wanted=f"at least {_points(-limits.max_recall_drop)} points",
        ),
    ]
    figures: Figures = {
        "n_compared": found.n,
        "n_gained": found.n_gained,
        "n_lost": found.n_lost,
        "p": found.p,
        "difference": found.mean,
        "difference_ci_low": found.low,
        "difference_ci_high": found.high,
        "incumbent_accuracy": float(earlier.sum() / len(earlier)),
    }
    return checks, figures


def at_most(name: str, value: float, limit: float | None, unit: str) -> list[Check]:
    """Return the check of a figure against an upper limit, if one is set."""
    if limit is None:
        return []
    found, wanted = f"{value:.3g} {unit}", f"at most {limit:.4g} {unit}"
    return [Check(name=name, passed=value <= limit, found=found, wanted=wanted)]


def failed(checks: list[Check]) -> str:
    """Return which checks failed, in words; "" where none did."""
    return "; ".join(
        f"{check.name}: {check.found}; wanted {check.wanted}"
        for check in checks
        if not check.passed
    )


def _interval(found: paired.Difference, margin: float) -> str:
    """Return a difference with its interval, and that there are too few images if there are."""
    few = ": too few images" if found.mean >= 0 and found.low <= -margin else ""
    return f"{_points(found.mean)} ({_points(found.low)} to {_points(found.high)}) points{few}"


def _probability(p: float) -> str:
    return f"= {p:.2g}" if p >= 1e-4 else "< 0.0001"


def _points(share: Any) -> str:
    """Return a difference of fractions in percentage points, with its sign."""
    return f"{100 * share + 0.0:+.2f}".replace("-", "\N{MINUS SIGN}")
