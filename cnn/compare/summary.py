"""What a comparison comes to: counts in words, outcomes of images, accuracies, names of files."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cnn import formatting
from cnn.evaluate import paired

SUMMARY_NAME, CHANGED_NAME = "comparison.json", "changed.png"
_WORDS = {"same": "the same", "changed": "changed", "dead": "dead", "lost": "lost", "new": "new"}
STATUSES = tuple(_WORDS)
Outcome = Literal["wrong now", "right now", "wrong in another way"]


def picture_name(layer: str) -> str:
    """Return the name of the picture of a layer's pairs."""
    return f"matches-{layer}.png"


def accuracy(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> dict[str, float]:
    """Return both accuracies on the same images, and the paired interval of the difference.

    before, after: which of the n > 0 images each model has right, (n,).
    """
    found = paired.difference(after, before)
    return {
        "before": float(before.mean()),
        "after": float(after.mean()),
        "change": found.mean,
        "ci_low": found.low,
        "ci_high": found.high,
        "n": found.n,
    }


def outcome(row: Mapping[str, Any]) -> Outcome:
    """Return what became of an image whose prediction changed."""
    if row["right_after"]:
        return "right now"
    return "wrong now" if row["right_before"] else "wrong in another way"


def filter_words(counts: Mapping[str, Any]) -> str:
    """Return how many filters have each status: "21 the same, 3 changed, 1 lost, 1 new"."""
    return ", ".join(f"{counts[name]} {word}" for name, word in _WORDS.items() if counts[name])


def accuracy_words(told: Mapping[str, Any]) -> str:
    """Return both accuracies, the change and its interval in words."""
    found = told["accuracy"]
    before, after = formatting.percent(found["before"]), formatting.percent(found["after"])
    change, low, high = (f"{100 * found[part]:+.2f}" for part in ("change", "ci_low", "ci_high"))
    return (
        f"{told['split'].capitalize()} accuracy {before} before, {after} now: "
        f"{change} points (95 % interval {low} to {high})"
    )


def prediction_words(told: Mapping[str, Any]) -> str:
    """Return how many predictions are others now, and what became of them, in words."""
    n, split = told["n_changed_predictions"], told["split"]
    right, wrong = told["n_became_right"], told["n_became_wrong"]
    words = f"{n:,} of {told['n_images']:,} {split} images have another prediction"
    other = f" and {n - right - wrong:,} are wrong in another way"
    return f"{words}: {right:,} became right, {wrong:,} became wrong{other}" if n else words
