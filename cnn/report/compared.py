"""What is said of a comparison of two trainings: its counts in words, and its part of the page."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn.report import html
from cnn.store import tables

SUMMARY_NAME = "comparison.json"
N_LISTED = 20  # changed predictions on the page
_WORDS = {"same": "the same", "changed": "changed", "dead": "dead", "lost": "lost", "new": "new"}
STATUSES = tuple(_WORDS)


def section(folder: Path) -> dict[str, Any]:
    """Return what the page shows of a comparison that was written into a folder."""
    summary = json.loads((folder / SUMMARY_NAME).read_text(encoding="utf-8"))
    rows = tables.read(folder / "changed_predictions.parquet").slice(0, N_LISTED).to_pylist()
    layers = [
        {
            "name": counts["layer"],
            "words": words(counts),
            "null_correlation": counts["null_correlation"],
            "picture": html.data_uri((folder / f"matches-{counts['layer']}.png").read_bytes()),
        }
        for counts in summary["layers"]
    ]
    return {**summary, "layers": layers, "rows": rows, "predictions": predictions(summary)}


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
