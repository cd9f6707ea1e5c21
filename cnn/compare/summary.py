"""Summarize a comparison: accuracies, outcomes of images, counts in words, file names."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cnn import formatting
from cnn.evaluate import paired

SUMMARY_NAME, CHANGED_NAME = "comparison.json", "changed.png"
_WORDS = {"same": "the same", "changed": "changed", "dead": "dead", "lost": "lost", "new": "new"}
STATUSES = tuple(_WORDS)
Outcome = Literal["wrong now", "right now", "still wrong"]


def picture_name(layer: str) -> str:
    """Return the file name of the figure of a layer's pairs."""
    return f"matches-{layer}.png"


def accuracy(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> dict[str, float]:
    """Return both accuracies on the same images, and the paired interval of their difference.

    before, after: which of the n > 0 images each model classifies correctly, (n,).
    """
    difference = paired.difference(after, before)
    return {
        "before": float(before.mean()),
        "after": float(after.mean()),
        "change": difference.mean,
        "ci_low": difference.low,
        "ci_high": difference.high,
        "n": difference.n,
    }


def outcome(row: Mapping[str, Any]) -> Outcome:
    """Return the outcome for an image whose prediction changed."""
    if row["right_after"]:
        return "right now"
    return "wrong now" if row["right_before"] else "still wrong"


def filter_words(counts: Mapping[str, Any]) -> str:
    """Return the number of filters with each status: "21 the same, 3 changed, 1 lost, 1 new"."""
    return ", ".join(f"{counts[name]} {word}" for name, word in _WORDS.items() if counts[name])


def accuracy_words(summary: Mapping[str, Any]) -> str:
    """Return both accuracies, the change and its interval in words."""
    found = summary["accuracy"]
    before, after = formatting.percent(found["before"]), formatting.percent(found["after"])
    change, low, high = (f"{100 * found[name]:+.2f}" for name in ("change", "ci_low", "ci_high"))
    return (
        f"{summary['split'].capitalize()} accuracy {before} before, {after} now: "
        f"{change} points (95 % interval {low} to {high})"
    )


def prediction_words(summary: Mapping[str, Any]) -> str:
    """Return how many predictions changed, and with what outcome, in words."""
    n, n_images = summary["n_changed_predictions"], summary["n_images"]
    right, wrong = summary["n_became_right"], summary["n_became_wrong"]
    words = f"{n:,} of {n_images:,} {summary['split']} images have a different prediction"
    outcomes = f"{right:,} became right, {wrong:,} became wrong, {n - right - wrong:,} stayed wrong"
    return f"{words}: {outcomes}" if n else words
