"""The part of the report that shows a comparison with the promoted model."""

import json
from pathlib import Path
from typing import Any

from cnn.compare import summary
from cnn.report.pages import html
from cnn.tables import parquet

N_LISTED = 20  # changed predictions on the page


def section(folder: Path) -> dict[str, Any]:
    """Return what the page shows of a comparison that was written into a folder."""
    told = json.loads((folder / summary.SUMMARY_NAME).read_text(encoding="utf-8"))
    rows = parquet.read(folder / "changed_predictions.parquet").slice(0, N_LISTED).to_pylist()
    layers = [
        {
            "name": counts["layer"],
            "words": summary.filter_words(counts),
            "null_correlation": counts["null_correlation"],
            "picture": html.data_uri((folder / summary.picture_name(counts["layer"])).read_bytes()),
        }
        for counts in told["layers"]
    ]
    return {
        **told,
        "layers": layers,
        "rows": [row | {"outcome": summary.outcome(row)} for row in rows],
        "changed": html.data_uri((folder / summary.CHANGED_NAME).read_bytes()),
        "accuracy": summary.accuracy_words(told),
        "predictions": summary.prediction_words(told),
    }
