"""The gate's checks, computed from hits (correct predictions) on the validation images.

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

SIGNIFICANT = 0.05  # a loss with McNemar's p below this is not chance


def recalls(labels: NDArray[np.int64], hits: Hits, n_classes: int) -> NDArray[np.float64]:
    """Return the recall of each class as a fraction, NaN for a class without images."""
    support = np.bincount(labels, minlength=n_classes)
    right = np.bincount(labels[hits], minlength=n_classes)
    fractions: NDArray[np.float64] = np.divide(
        right, support, out=np.full(n_classes, nan), where=support > 0
    )
    return fractions


def floor(
    labels: NDArray[np.int64], hits: Hits, names: tuple[str, ...], limits: GateConfig
) -> list[Check]:
    """Return the checks of accuracy and of the lowest class recall, which need no other model."""
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
    """Return the checks against the promoted model, image by image, and their figures.

    hits, earlier: those of the new and of the promoted model on the same images, (n,).
    """
    difference = paired.difference(hits, earlier)
    drop = recalls(labels, earlier, len(names)) - recalls(labels, hits, len(names))
    worst = int(np.nanargmax(drop))
    significant = difference.n_lost > difference.n_gained and difference.p < SIGNIFICANT
    checks = [
        Check(
            name="McNemar test",
            passed=not significant,
            found=f"{difference.n_gained} gained, {difference.n_lost} lost of "
            f"{difference.n:,} images, p {_probability(difference.p)}",
            wanted=f"p >= {SIGNIFICANT}, or no more lost than gained",
        ),
        Check(
            name="accuracy drop",
            passed=difference.low > -limits.max_accuracy_drop,
            found=_interval(difference, limits.max_accuracy_drop),
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
        "n_compared": difference.n,
        "n_gained": difference.n_gained,
        "n_lost": difference.n_lost,
        "p": difference.p,
        "difference": difference.mean,
        "difference_ci_low": difference.low,
        "difference_ci_high": difference.high,
        "incumbent_accuracy": float(earlier.sum() / len(earlier)),
    }
    return checks, figures


def at_most(name: str, value: float, limit: float | None, unit: str) -> list[Check]:
    """Return the check of a value against an upper limit; no check if there is no limit."""
    if limit is None:
        return []
    found, wanted = f"{value:.3g} {unit}", f"at most {limit:.4g} {unit}"
    return [Check(name=name, passed=value <= limit, found=found, wanted=wanted)]


def failed(checks: list[Check]) -> str:
    """Return one line that names the failed checks; "" if all passed."""
    return "; ".join(
        f"{check.name}: {check.found}; required: {check.wanted}"
        for check in checks
        if not check.passed
    )


def _interval(difference: paired.Difference, margin: float) -> str:
    """Return a difference with its interval; says so if there are too few images to decide."""
    low, high = _points(difference.low), _points(difference.high)
    few = ": too few images" if difference.mean >= 0 and difference.low <= -margin else ""
    return f"{_points(difference.mean)} ({low} to {high}) points{few}"


def _probability(p: float) -> str:
    return f"= {p:.2g}" if p >= 1e-4 else "< 0.0001"


def _points(fraction: Any) -> str:
    """Return a difference of fractions in percentage points, with its sign."""
    return f"{100 * fraction + 0.0:+.2f}".replace("-", "\N{MINUS SIGN}")
