"""The schema of every parquet table, declared once, the same for 0 rows and for 10 million.

Each column carries its description, in the file too: `schema.field(name).metadata`. Run as a
module, it writes the tables of columns in docs/tables.md anew.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1


def _schema(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    """Return a schema of columns: name, type, description."""
    version = ("schema_version", pa.int32(), "version of this page that the file follows")
    return pa.schema(
        [
            pa.field(name, kind, metadata={"description": description})
            for name, kind, description in (version, *columns)
        ]
    )


SCHEMAS: dict[str, pa.Schema] = {
    "history": _schema(
        ("step", pa.int64(), "optimizer steps done"),
        ("n_images_seen", pa.int64(), "training images seen, repeats counted"),
        (
            "split",
            pa.string(),
            "`train`: the batches since the last log point, with dropout and augmentation; or "
            "the split that is logged",
        ),
        (
            "loss",
            pa.float64(),
            "mean cross-entropy, nats, with the labels as they are, smoothed or not in training",
        ),
        ("accuracy", pa.float64(), "share of images right"),
        ("learning_rate", pa.float64(), "of the last step"),
        ("status", pa.string(), "`ok`, or `diverged`"),
        ("device", pa.string(), "`cpu` or `gpu`: what computed the step"),
        ("device_name", pa.string(), "name of the processor or GPU"),
        ("precision", pa.string(), "`float32` or `bfloat16`: in which layers computed"),
    ),
    "predictions": _schema(
        ("image_id", pa.int64(), "index of the image in the file it came from"),
        ("split", pa.string(), "`validation` or `test`"),
        ("label", pa.int32(), "index of the true class"),
        ("prediction", pa.int32(), "index of the most probable class"),
        ("label_name", pa.string(), "name of the true class"),
        ("prediction_name", pa.string(), "name of the most probable class"),
        ("probability", pa.float32(), "of the most probable class"),
        ("probabilities", pa.list_(pa.float32()), "of every class"),
        ("loss", pa.float32(), "cross-entropy, nats"),
    ),
    "metrics": _schema(
        ("split", pa.string(), "`validation` or `test`"),
        ("metric", pa.string(), "name of the metric"),
        ("value", pa.float64(), "its value"),
        ("ci_low", pa.float64(), "lower end of the 95 % Wilson interval, null where there is none"),
        ("ci_high", pa.float64(), "upper end of it"),
        ("n", pa.int64(), "images"),
    ),
    "per_class": _schema(
        ("split", pa.string(), "`validation` or `test`"),
        ("label", pa.int32(), "index of the class"),
        ("label_name", pa.string(), "name of the class"),
        ("support", pa.int64(), "images of the class"),
        ("precision", pa.float64(), "share of its predictions that are right"),
        ("recall", pa.float64(), "share of its images that are right"),
        ("f1", pa.float64(), "harmonic mean of both"),
    ),
    "confusion": _schema(
        ("split", pa.string(), "`validation` or `test`"),
        ("label", pa.int32(), "index of the true class"),
        ("prediction", pa.int32(), "index of the predicted class"),
        ("label_name", pa.string(), "name of the true class"),
        ("prediction_name", pa.string(), "name of the predicted class"),
        ("count", pa.int64(), "images"),
    ),
    "calibration": _schema(
        ("split", pa.string(), "`validation` or `test`"),
        ("bin", pa.int32(), "number of the bin"),
        ("probability_low", pa.float64(), "lower edge"),
        ("probability_high", pa.float64(), "upper edge"),
        ("n", pa.int64(), "images"),
        ("mean_probability", pa.float64(), "mean over them, null without images"),
        ("accuracy", pa.float64(), "share of them right"),
        ("ci_low", pa.float64(), "lower end of the 95 % Wilson interval"),
        ("ci_high", pa.float64(), "upper end of it"),
    ),
    "filters": _schema(
        ("layer", pa.string(), "name of the layer"),
        ("filter", pa.int32(), "number of the filter, from 0"),
        ("split", pa.string(), "images that the figures of activations are of"),
        ("l1_norm", pa.float64(), "sum of the absolute weights"),
        ("l2_norm", pa.float64(), "root of the sum of the squared weights"),
        ("mean_weight", pa.float64(), "mean of the weights"),
        ("dead", pa.bool_(), "whether it never fires"),
        ("fraction_active", pa.float64(), "share of positions at which it fires"),
        ("max_activation", pa.float64(), "highest activation"),
        ("mean_activation", pa.float64(), "mean activation, which is the mean response"),
        (
            "activation_median",
            pa.float64(),
            "activation that half of the positions, silent ones too, are not above; too large "
            "by 1/128 of it at most",
        ),
        ("activation_p90", pa.float64(), "the same for 90 % of them"),
        ("activation_p99", pa.float64(), "the same for 99 %"),
        (
            "histogram",
            pa.list_(pa.int64()),
            "positions that fire, in 20 bins of one width from 0 to `max_activation`; upper "
            "edges belong to their bins; activations by less than 1/128 below one may be "
            "counted above it",
        ),
        (
            "class_means",
            pa.list_(pa.float64()),
            "mean response to each class, null for one without images",
        ),
        (
            "selectivity",
            pa.float64(),
            "class selectivity index, 0..1; null where the filter is dead or there is one class",
        ),
        (
            "preferred_label",
            pa.int32(),
            "class of the highest mean response, null where the filter is dead",
        ),
        (
            "sparsity",
            pa.float64(),
            "lifetime sparseness: of its responses over the images, 0..1; null where the filter "
            "is dead or there is one image",
        ),
        (
            "population_sparsity",
            pa.float64(),
            "sparseness of an image's responses over the layer's filters, mean over the images "
            "that any responds to; the same in all rows of a layer",
        ),
        (
            "smoothness",
            pa.float64(),
            "how alike neighbouring weights are: near 1 smooth, 0 noise, below 0 alternating; "
            "null where all of a channel are equal",
        ),
        (
            "nearest_filter",
            pa.int32(),
            "filter with the most similar kernel, null for one of zeros",
        ),
        ("nearest_cosine", pa.float64(), "cosine of both kernels"),
        (
            "correlated_filter",
            pa.int32(),
            "filter that fires most alike, null for one that is dead or the same everywhere",
        ),
        ("correlation", pa.float64(), "correlation of both activations"),
    ),
    "patches": _schema(
        ("layer", pa.string(), "name of the layer"),
        ("filter", pa.int32(), "number of the filter, from 0"),
        ("rank", pa.int32(), "1 is the strongest, or the lowest where those were asked for"),
        ("split", pa.string(), "images that were searched"),
        ("image_id", pa.int64(), "index of the image in the file it came from"),
        ("y", pa.int32(), "row in the layer's map"),
        ("x", pa.int32(), "column in the layer's map"),
        ("activation", pa.float32(), "after the ReLU; the lowest are as they are before it"),
        (
            "y0",
            pa.int32(),
            "top of the box, pixels: what the unit at `y`, `x` sees; below 0 where it sees padding",
        ),
        ("x0", pa.int32(), "left of the box"),
        ("y1", pa.int32(), "bottom of the box, exclusive"),
        ("x1", pa.int32(), "right of the box, exclusive"),
        (
            "clipped_y0",
            pa.int32(),
            "the same without what lies in the padding of any layer: other pixels do not change "
            "the activation",
        ),
        ("clipped_x0", pa.int32(), "left of it"),
        ("clipped_y1", pa.int32(), "bottom of it, one past the end"),
        ("clipped_x1", pa.int32(), "right of it, one past the end"),
        ("label", pa.int32(), "index of the true class"),
        ("prediction", pa.int32(), "index of the predicted class"),
        ("label_name", pa.string(), "name of the true class"),
        ("prediction_name", pa.string(), "name of the predicted class"),
        ("n_tied", pa.int64(), "further positions of the filter with its last row's activation"),
    ),
    "matches": _schema(
        ("layer", pa.string(), "name of the layer"),
        (
            "filter_before",
            pa.int32(),
            "number of the filter in the earlier model, null where there is none",
        ),
        (
            "filter_after",
            pa.int32(),
            "number of the filter in the later model, null where there is none",
        ),
        (
            "status",
            pa.string(),
            "`same`: correlation 0.9 or above; `changed`: below it; `dead`: neither ever fires; "
            "`lost`: the later model has none like it; `new`: the earlier model had none like "
            "it",
        ),
        (
            "correlation",
            pa.float64(),
            "of the activations of both on the test images; null where a filter is alone or dead",
        ),
        (
            "null_correlation",
            pa.float64(),
            "what the best pair of filters reaches when the images are shuffled; a pair must be "
            "above it",
        ),
        (
            "max_activation_before",
            pa.float64(),
            "largest activation on the test images; 0 for a filter that never fires; null where "
            "there is none",
        ),
        ("max_activation_after", pa.float64(), "the same of the other filter"),
    ),
    "changed_predictions": _schema(
        ("image_id", pa.int64(), "index of the image in the file it came from"),
        ("split", pa.string(), "`test`"),
        ("label", pa.int32(), "index of the true class"),
        (
            "prediction_before",
            pa.int32(),
            "index of the earlier model's class among those of the data set, null where it has "
            "none of that name",
        ),
        ("prediction_after", pa.int32(), "the same of the later model"),
        ("label_name", pa.string(), "name of the true class"),
        (
            "prediction_before_name",
            pa.string(),
            "name of the class that the earlier model predicts",
        ),
        ("prediction_after_name", pa.string(), "name of the class that the later model predicts"),
        ("right_before", pa.bool_(), "whether the earlier model was right"),
        ("right_after", pa.bool_(), "whether the later model is right"),
    ),
    "runs": _schema(
        ("run", pa.string(), "name of the run's folder"),
        ("created", pa.timestamp("us", tz="UTC"), "when it began"),
        ("status", pa.string(), "`completed` or `failed`"),
        ("data", pa.string(), "data set"),
        ("recipe", pa.string(), "recipe"),
        ("seed", pa.int64(), "`train.seed`"),
        ("test_accuracy", pa.float64(), "null where there is none"),
        ("test_accuracy_ci_low", pa.float64(), "lower end of the 95 % Wilson interval"),
        ("test_accuracy_ci_high", pa.float64(), "upper end of it"),
        ("validation_accuracy", pa.float64(), "null where there is none"),
        ("n_steps_run", pa.int32(), "steps that ran"),
        ("n_steps_cached", pa.int32(), "steps that were found in the store"),
        ("seconds", pa.float64(), "duration"),
        ("model_digest", pa.string(), "digest of the model, null where there is none"),
        (
            "deployment",
            pa.string(),
            "the deployment that ran it, empty for runs from the command line",
        ),
        ("gate", pa.string(), "`promoted`, `kept` or `rejected`; null where it failed before"),
    ),
}


def digest(name: str) -> str:
    """Return a digest of a table's columns and version, for the keys of steps that write it."""
    columns = SCHEMAS[name].to_string(show_field_metadata=False)
    return hashlib.sha256(f"{SCHEMA_VERSION} {columns}".encode()).hexdigest()[:16]


def documented(page: str) -> str:
    """Return docs/tables.md with the table of columns below each heading `## <table>` made anew."""
    for name, schema in SCHEMAS.items():
        before, heading, section = page.partition(f"\n## {name}\n")
        intro, _, rest = section.partition("| column |")
        _, _, after = rest.partition("\n\n")
        page = f"{before}{heading}{intro}{_columns(schema)}\n\n{after}"
    return page


def _columns(schema: pa.Schema) -> str:
    """Return the columns of a table, with types and descriptions, in markdown."""
    rows = [f"| `{f.name}` | {_type_words(f.type)} | {_description(f)} |" for f in schema]
    return "\n".join(["| column | type | what it is |", "| --- | --- | --- |", *rows])


def _type_words(kind: pa.DataType) -> str:
    return f"list of {kind.value_type}" if pa.types.is_list(kind) else str(kind)


def _description(field: "pa.Field[Any]") -> str:
    return (field.metadata or {})[b"description"].decode()


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(documented(path.read_text(encoding="utf-8")), encoding="utf-8")
