"""What is said of a comparison of two trainings: its counts in words, and its part of the page."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cnn.evaluate import gate
from cnn.report import html
from cnn.store import tables

SUMMARY_NAME, CHANGED_NAME = "comparison.json", "changed.png"
N_LISTED = 20  # changed predictions on the page
_WORDS = {"same": "the same", "changed": "changed", "dead": "dead", "lost": "lost", "new": "new"}
STATUSES = tuple(_WORDS)
Outcome = Literal["wrong now", "right now", "wrong in another way"]


def section(folder: Path) -> dict[str, Any]:
    """Return what the page shows of a comparison that was written into a folder."""
    summary = json.loads((folder / SUMMARY_NAME).read_text(encoding="utf-8"))
    rows = tables.read(folder / "changed_predictions.parquet").slice(0, N_LISTED).to_pylist()
    layers = [
        {
            "name": counts["layer"],
            "words": words(counts),
            "null_correlation": counts["null_correlation"],
            "picture": html.data_uri((folder / picture_name(counts["layer"])).read_bytes()),
        }
        for counts in summary["layers"]
    ]
    return {
        **summary,
        "layers": layers,
        "rows": [row | {"outcome": outcome(row)} for row in rows],
        "changed": html.data_uri((folder / CHANGED_NAME).read_bytes()),
        "accuracy": accuracy_words(summary),
        "predictions": predictions(summary),
    }


def picture_name(layer: str) -> str:
    """Return the name of the picture of a layer's pairs."""
    return f"matches-{layer}.png"


def accuracy(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> dict[str, float]:
    """Return both accuracies on the same images, and the paired interval of the difference.

    before, after: which of the n > 0 images each model has right, (n,).
    """
    found = gate.difference(after, before)
    return {
        "before": float(before.mean()),
        "after": float(after.mean()),
        "change": found.mean,
        "ci_low": found.low,
        "ci_high": found.high,
        "n": found.n,
    }


def accuracy_words(summary: Mapping[str, Any]) -> str:
    """Return both accuracies, the change and its interval in words."""
    found = summary["accuracy"]
    before, after = html.percent(found["before"]), html.percent(found["after"])
    change, low, high = (f"{100 * found[part]:+.2f}" for part in ("change", "ci_low", "ci_high"))
    return (
        f"{summary['split'].capitalize()} accuracy {before} before, {after} now: "
        f"{change} points (95 % interval {low} to {high})"
    )


def outcome(row: Mapping[str, Any]) -> Outcome:
    """Return what became of an image whose prediction changed."""
    if row["right_after"]:
        return "right now"
    return "wrong now" if row["right_before"] else "wrong in another way"


def words(counts: Mapping[str, Any]) -> str:
    """Return how many filters have each status: "21 the same, 3 changed, 1 lost, 1 new"."""
    return ", ".join(f"{counts[name]} {word}" for name, word in _WORDS.items() if counts[name])


def predictions(summary: Mapping[str, Any]) -> str:
    """Return how many predictions are others now, and what became of them, in words."""
    n, split = summary["n_changed_predictions"], summary["split"]
    right, wrong = summary["n_became_right"], summary["n_became_wrong"]
    told = f"{n:,} of {summary['n_images']:,} {split} images have another prediction"
    other = f" and {n - right - wrong:,} are wrong in another way"
    return f"{told}: {right:,} became right, {wrong:,} became wrong{other}" if n else told
