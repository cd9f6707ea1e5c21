"""What is written of a comparison of two models: the work of the step compare_models."""

import json
from pathlib import Path

from cnn.compare import summary
from cnn.compare.comparison import Comparison
from cnn.data.dataset import Split
from cnn.report.figures import changed_predictions, matched_filters, theme
from cnn.tables import parquet


def write(folder: Path, found: Comparison, split: Split) -> None:
    """Write both tables, PNGs, and comparison.json with the counts and the accuracies.

    The PNGs show the pairs of every layer, and those of the split's images whose prediction
    changed. split: the one that was compared on.
    """
    parquet.write_rows(folder / "matches.parquet", "matches", found.matches)
    parquet.write_rows(folder / "changed_predictions.parquet", "changed_predictions", found.changed)
    for layer in found.layers:
        theme.save(matched_filters.draw(layer), folder / summary.picture_name(layer.match.layer))
    theme.save(changed_predictions.draw(found.changed, split), folder / summary.CHANGED_NAME)
    said = found.predictions
    accuracy = summary.accuracy(said.right_before, said.right_after)
    text = json.dumps(found.summary() | {"accuracy": accuracy}, indent=2, allow_nan=False)
    (folder / summary.SUMMARY_NAME).write_text(text, encoding="utf-8")
