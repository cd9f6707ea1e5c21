"""Write the comparison of two models: the work of the step compare_models."""

import json
from pathlib import Path

from cnn.compare import summary
from cnn.compare.comparison import Comparison
from cnn.data.dataset import Split
from cnn.report.figures import changed_predictions, matched_filters, theme
from cnn.tables import parquet


def write(folder: Path, comparison: Comparison, split: Split) -> None:
    """Write both tables, the PNGs, and comparison.json with the counts and the accuracies.

    The PNGs show the matched filters of each layer and the images whose prediction changed.
    split: the split on which the models were compared.
    """
    parquet.write_rows(folder / "matches.parquet", "matches", comparison.matches)
    parquet.write_rows(
        folder / "changed_predictions.parquet", "changed_predictions", comparison.changed
    )
    for layer in comparison.layers:
        theme.save(matched_filters.draw(layer), folder / summary.picture_name(layer.match.layer))
    theme.save(changed_predictions.draw(comparison.changed, split), folder / summary.CHANGED_NAME)
    predictions = comparison.predictions
    accuracy = summary.accuracy(predictions.right_before, predictions.right_after)
    text = json.dumps(comparison.summary() | {"accuracy": accuracy}, indent=2, allow_nan=False)
    (folder / summary.SUMMARY_NAME).write_text(text, encoding="utf-8")
