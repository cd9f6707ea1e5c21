"""The schemas of the parquet tables, each declared once, for empty tables as for large ones.

Each column carries its description, also in the file: `schema.field(name).metadata`. Run as a
module, this one updates the tables of columns in docs/tables.md.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1


def _schema(kind: str, *columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    """Return the schema of a table: the kind of artifact it belongs to, and its columns.

    kind: "" for a table that is no artifact's. columns: name, type and description.
    """
    version = ("schema_version", pa.int32(), "version of the table schemas")
    return pa.schema(
        [
            pa.field(name, type_, metadata={"description": description})
            for name, type_, description in (version, *columns)
        ],
        metadata={"artifact": kind},
    )


SCHEMAS: dict[str, pa.Schema] = {
    "history": _schema(
        "model",
        ("step", pa.int64(), "optimizer steps done"),
        ("n_images_seen", pa.int64(), "training images seen so far, including repeats"),
        (
            "split",
            pa.string(),
            "`train`: the batches since the last log point, with dropout and augmentation; "
            "otherwise the split that `train.log_split` names",
        ),
        (
            "loss",
            pa.float64(),
            "mean cross-entropy in nats against the true labels, even if training smooths them",
        ),
        ("accuracy", pa.float64(), "fraction of images classified correctly"),
        ("learning_rate", pa.float64(), "learning rate of the last step"),
        ("status", pa.string(), "`ok` or `diverged`"),
        ("device", pa.string(), "`cpu` or `gpu`: where the step was computed"),
        ("device_name", pa.string(), "name of the processor or GPU"),
        (
            "precision",
            pa.string(),
            "`float32` or `bfloat16`: number format of the layers' computations",
        ),
    ),
    "predictions": _schema(
        "evaluation",
        ("image_id", pa.int64(), "index of the image in the file it came from"),
        ("split", pa.string(), "`validation` or `test`"),
        ("label", pa.int32(), "index of the true class"),
        ("prediction", pa.int32(), "index of the most probable class"),
        ("label_name", pa.string(), "name of the true class"),
        ("prediction_name", pa.string(), "name of the most probable class"),
        ("probability", pa.float32(), "probability of the most probable class"),
        ("probabilities", pa.list_(pa.float32()), "probability of each class"),
        ("loss", pa.float32(), "cross-entropy, nats"),
    ),
    "metrics": _schema(
        "evaluation",
        ("split", pa.string(), "`train` (class counts only), `validation` or `test`"),
        ("metric", pa.string(), "name of the metric"),
        ("value", pa.float64(), "value of the metric"),
        (
            "ci_low",
            pa.float64(),
            "lower end of the 95 % Wilson interval, null for a metric without one",
        ),
        ("ci_high", pa.float64(), "upper end of the interval"),
        ("n", pa.int64(), "number of images"),
    ),
    "per_class": _schema(
        "evaluation",
        ("split", pa.string(), "`validation` or `test`"),
        ("label", pa.int32(), "index of the class"),
        ("label_name", pa.string(), "name of the class"),
        ("support", pa.int64(), "number of images of the class"),
        ("precision", pa.float64(), "fraction of the predictions of this class that are correct"),
        (
            "recall",
            pa.float64(),
            "fraction of the images of this class that are classified correctly",
        ),
        ("f1", pa.float64(), "harmonic mean of precision and recall"),
    ),
    "confusion": _schema(
        "evaluation",
        ("split", pa.string(), "`validation` or `test`"),
        ("label", pa.int32(), "index of the true class"),
        ("prediction", pa.int32(), "index of the predicted class"),
        ("label_name", pa.string(), "name of the true class"),
        ("prediction_name", pa.string(), "name of the predicted class"),
        ("count", pa.int64(), "number of images"),
    ),
    "calibration": _schema(
        "evaluation",
        ("split", pa.string(), "`validation` or `test`"),
        ("bin", pa.int32(), "index of the bin"),
        ("probability_low", pa.float64(), "lower edge of the bin"),
        ("probability_high", pa.float64(), "upper edge of the bin"),
        ("n", pa.int64(), "number of images in the bin"),
        (
            "mean_probability",
            pa.float64(),
            "mean probability of the predicted class over these images, null for an empty bin",
        ),
        (
            "accuracy",
            pa.float64(),
            "fraction of these images classified correctly, null for an empty bin",
        ),
        (
            "ci_low",
            pa.float64(),
            "lower end of the accuracy's 95 % Wilson interval, null for an empty bin",
        ),
        ("ci_high", pa.float64(), "upper end of the interval"),
    ),
    "filters": _schema(
        "filters",
        ("layer", pa.string(), "name of the layer"),
        ("filter", pa.int32(), "index of the filter, from 0"),
        ("split", pa.string(), "split on which the activations were computed"),
        ("l1_norm", pa.float64(), "sum of the absolute weights"),
        ("l2_norm", pa.float64(), "square root of the sum of the squared weights"),
        ("mean_weight", pa.float64(), "mean of the weights"),
        ("dead", pa.bool_(), "whether the filter never fires"),
        ("fraction_active", pa.float64(), "fraction of positions at which the filter fires"),
        ("max_activation", pa.float64(), "highest activation"),
        ("mean_activation", pa.float64(), "mean activation, which equals the mean response"),
        (
            "activation_median",
            pa.float64(),
            "median activation over all positions, including those where the filter does not "
            "fire; overestimated by at most 1/128 of its value",
        ),
        (
            "activation_p90",
            pa.float64(),
            "90th percentile of the same activations, with the same tolerance",
        ),
        ("activation_p99", pa.float64(), "99th percentile, likewise"),
        (
            "histogram",
            pa.list_(pa.int64()),
            "number of positions at which the filter fires, in 20 bins of equal width from 0 to "
            "`max_activation`; a bin includes its upper edge; an activation less than 1/128 below "
            "an edge may be counted above it",
        ),
        (
            "class_means",
            pa.list_(pa.float64()),
            "mean response to each class, null for a class without images",
        ),
        (
            "selectivity",
            pa.float64(),
            "class selectivity index, 0..1; null if the filter is dead or there is only one class",
        ),
        (
            "preferred_label",
            pa.int32(),
            "class with the highest mean response, null if the filter is dead",
        ),
        (
            "sparsity",
            pa.float64(),
            "lifetime sparseness: sparseness of the filter's responses over the images, 0..1; "
            "null if the filter is dead or there is only one image",
        ),
        (
            "population_sparsity",
            pa.float64(),
            "sparseness of an image's responses over the layer's filters, averaged over the "
            "images to which any filter responds; the same in all rows of a layer",
        ),
        (
            "smoothness",
            pa.float64(),
            "similarity of neighbouring weights: near 1 for a smooth kernel, 0 for noise, below 0 "
            "for alternating weights; null if the weights within each channel are all equal",
        ),
        (
            "nearest_filter",
            pa.int32(),
            "filter with the most similar kernel, null for an all-zero kernel",
        ),
        ("nearest_cosine", pa.float64(), "cosine similarity of the two kernels"),
        (
            "correlated_filter",
            pa.int32(),
            "filter with the most highly correlated activations, null for a filter that is dead "
            "or has the same activation everywhere",
        ),
        ("correlation", pa.float64(), "correlation of the two filters' activations"),
    ),
    "patches": _schema(
        "patches",
        ("layer", pa.string(), "name of the layer"),
        ("filter", pa.int32(), "index of the filter, from 0"),
        (
            "rank",
            pa.int32(),
            "1 is the strongest activation, or the lowest if the lowest were requested",
        ),
        ("split", pa.string(), "split that was searched"),
        ("image_id", pa.int64(), "index of the image in the file it came from"),
        ("y", pa.int32(), "row in the layer's feature map"),
        ("x", pa.int32(), "column in the layer's feature map"),
        (
            "activation",
            pa.float32(),
            "activation after the ReLU; before the ReLU if the lowest were requested",
        ),
        (
            "y0",
            pa.int32(),
            "top edge of the receptive field of the unit at `y`, `x`, in pixels; below 0 where it "
            "extends into padding",
        ),
        ("x0", pa.int32(), "left edge of the receptive field"),
        ("y1", pa.int32(), "bottom edge of the receptive field, one past the end"),
        ("x1", pa.int32(), "right edge of the receptive field, one past the end"),
        (
            "clipped_y0",
            pa.int32(),
            "top edge of the receptive field without the padding of any layer; pixels outside of "
            "this smaller box do not change the activation",
        ),
        ("clipped_x0", pa.int32(), "left edge of the smaller box"),
        ("clipped_y1", pa.int32(), "bottom edge of the smaller box, one past the end"),
        ("clipped_x1", pa.int32(), "right edge of the smaller box, one past the end"),
        ("label", pa.int32(), "index of the true class"),
        ("prediction", pa.int32(), "index of the predicted class"),
        ("label_name", pa.string(), "name of the true class"),
        ("prediction_name", pa.string(), "name of the predicted class"),
        ("n_tied", pa.int64(), "number of further positions that tie with the filter's last row"),
    ),
    "matches": _schema(
        "comparison",
        ("layer", pa.string(), "name of the layer"),
        (
            "filter_before",
            pa.int32(),
            "index of the filter in the earlier model, null if it has no such filter",
        ),
        (
            "filter_after",
            pa.int32(),
            "index of the filter in the later model, null if it has no such filter",
        ),
        (
            "status",
            pa.string(),
            "`same`: correlation 0.9 or above; `changed`: below 0.9; `dead`: neither filter ever "
            "fires; `lost`: no counterpart in the later model; `new`: no counterpart in the "
            "earlier model",
        ),
        (
            "correlation",
            pa.float64(),
            "correlation of the two filters' activations on the test images; null for a filter "
            "that is unmatched or dead",
        ),
        (
            "null_correlation",
            pa.float64(),
            "highest correlation of any pair of filters when the images are shuffled; a match "
            "must exceed it",
        ),
        (
            "max_activation_before",
            pa.float64(),
            "highest activation of the earlier model's filter on the test images; 0 for a filter "
            "that never fires; null if there is no such filter",
        ),
        (
            "max_activation_after",
            pa.float64(),
            "highest activation of the later model's filter, likewise",
        ),
    ),
    "changed_predictions": _schema(
        "comparison",
        ("image_id", pa.int64(), "index of the image in the file it came from"),
        ("split", pa.string(), "`test`"),
        ("label", pa.int32(), "index of the true class"),
        (
            "prediction_before",
            pa.int32(),
            "index of the class that the earlier model predicts, null if the data set has no "
            "class of that name",
        ),
        (
            "prediction_after",
            pa.int32(),
            "index of the class that the later model predicts, likewise",
        ),
        ("label_name", pa.string(), "name of the true class"),
        (
            "prediction_before_name",
            pa.string(),
            "name of the class that the earlier model predicts",
        ),
        ("prediction_after_name", pa.string(), "name of the class that the later model predicts"),
        ("right_before", pa.bool_(), "whether the earlier model is right"),
        ("right_after", pa.bool_(), "whether the later model is right"),
    ),
    "runs": _schema(
        "",
        ("run", pa.string(), "name of the run's folder"),
        ("created", pa.timestamp("us", tz="UTC"), "start of the run"),
        ("status", pa.string(), "`completed` or `failed`"),
        ("data", pa.string(), "name of the data set"),
        ("recipe", pa.string(), "name of the recipe"),
        ("seed", pa.int64(), "seed of the training, `train.seed`"),
        ("test_accuracy", pa.float64(), "accuracy on the test split, null if there is none"),
        ("test_accuracy_ci_low", pa.float64(), "lower end of its 95 % Wilson interval"),
        ("test_accuracy_ci_high", pa.float64(), "upper end of the interval"),
        (
            "validation_accuracy",
            pa.float64(),
            "accuracy on the validation split, null if there is none",
        ),
        ("n_steps_run", pa.int32(), "number of steps that ran"),
        ("n_steps_cached", pa.int32(), "number of steps that were cached in the store"),
        ("seconds", pa.float64(), "duration of the run"),
        ("model_digest", pa.string(), "digest of the model, null if there is none"),
        (
            "deployment",
            pa.string(),
            "deployment that ran it, empty for a run from the command line",
        ),
        (
            "gate",
            pa.string(),
            "`promoted`, `kept` or `rejected`; null if the run failed before the gate",
        ),
    ),
}


def digests(kind: str) -> dict[str, str]:
    """Return the digest of every table of a kind of artifact, by name, for the artifact's key."""
    owner = kind.encode()
    return {n: digest(n) for n, s in SCHEMAS.items() if (s.metadata or {})[b"artifact"] == owner}


def digest(name: str) -> str:
    """Return the digest of a table's columns and version."""
    columns = SCHEMAS[name].to_string(show_field_metadata=False, show_schema_metadata=False)
    return hashlib.sha256(f"{SCHEMA_VERSION} {columns}".encode()).hexdigest()[:16]


def documented(page: str) -> str:
    """Return docs/tables.md with the columns under each heading `## <table>` brought up to date."""
    for name, schema in SCHEMAS.items():
        before, heading, section = page.partition(f"\n## {name}\n")
        intro, _, rest = section.partition("| column |")
        _, _, after = rest.partition("\n\n")
        page = f"{before}{heading}{intro}{_columns(schema)}\n\n{after}"
    return page


def _columns(schema: pa.Schema) -> str:
    """Return a schema's columns, with types and descriptions, as a markdown table."""
    rows = [f"| `{f.name}` | {_type_name(f.type)} | {_description(f)} |" for f in schema]
    return "\n".join(["| column | type | description |", "| --- | --- | --- |", *rows])


def _type_name(kind: pa.DataType) -> str:
    return f"list of {kind.value_type}" if pa.types.is_list(kind) else str(kind)


def _description(field: "pa.Field[Any]") -> str:
    return (field.metadata or {})[b"description"].decode()


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(documented(path.read_text(encoding="utf-8")), encoding="utf-8")
