"""The schema of every parquet table, declared once, the same for 0 rows and for 10 million."""

import hashlib

import pyarrow as pa

SCHEMA_VERSION = 1

_BOX = [("y0", pa.int32()), ("x0", pa.int32()), ("y1", pa.int32()), ("x1", pa.int32())]


def _schema(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema([("schema_version", pa.int32()), *columns])


SCHEMAS: dict[str, pa.Schema] = {
    "history": _schema(
        ("step", pa.int64()),
        ("n_images_seen", pa.int64()),
        ("split", pa.string()),
        ("loss", pa.float64()),
        ("accuracy", pa.float64()),
        ("learning_rate", pa.float64()),
        ("status", pa.string()),
        ("device", pa.string()),
        ("device_name", pa.string()),
        ("precision", pa.string()),
    ),
    "predictions": _schema(
        ("image_id", pa.int64()),
        ("split", pa.string()),
        ("label", pa.int32()),
        ("prediction", pa.int32()),
        ("label_name", pa.string()),
        ("prediction_name", pa.string()),
        ("probability", pa.float32()),
        ("probabilities", pa.list_(pa.float32())),
        ("loss", pa.float32()),
    ),
    "metrics": _schema(
        ("split", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("n", pa.int64()),
    ),
    "per_class": _schema(
        ("split", pa.string()),
        ("label", pa.int32()),
        ("label_name", pa.string()),
        ("support", pa.int64()),
        ("precision", pa.float64()),
        ("recall", pa.float64()),
        ("f1", pa.float64()),
    ),
    "confusion": _schema(
        ("split", pa.string()),
        ("label", pa.int32()),
        ("prediction", pa.int32()),
        ("label_name", pa.string()),
        ("prediction_name", pa.string()),
        ("count", pa.int64()),
    ),
    "calibration": _schema(
        ("split", pa.string()),
        ("bin", pa.int32()),
        ("probability_low", pa.float64()),
        ("probability_high", pa.float64()),
        ("n", pa.int64()),
        ("mean_probability", pa.float64()),
        ("accuracy", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
    ),
    "filters": _schema(
        ("layer", pa.string()),
        ("filter", pa.int32()),
        ("split", pa.string()),
        ("l1_norm", pa.float64()),
        ("l2_norm", pa.float64()),
        ("mean_weight", pa.float64()),
        ("dead", pa.bool_()),
        ("fraction_active", pa.float64()),
        ("max_activation", pa.float64()),
        ("mean_activation", pa.float64()),
        ("activation_median", pa.float64()),
        ("activation_p90", pa.float64()),
        ("activation_p99", pa.float64()),
        ("histogram", pa.list_(pa.int64())),
        ("class_means", pa.list_(pa.float64())),
        ("selectivity", pa.float64()),
        ("preferred_label", pa.int32()),
        ("sparsity", pa.float64()),
        ("population_sparsity", pa.float64()),
        ("smoothness", pa.float64()),
        ("nearest_filter", pa.int32()),
        ("nearest_cosine", pa.float64()),
        ("correlated_filter", pa.int32()),
        ("correlation", pa.float64()),
    ),
    "patches": _schema(
        ("layer", pa.string()),
        ("filter", pa.int32()),
        ("rank", pa.int32()),
        ("split", pa.string()),
        ("image_id", pa.int64()),
        ("y", pa.int32()),
        ("x", pa.int32()),
        ("activation", pa.float32()),
        *_BOX,
        *((f"clipped_{name}", kind) for name, kind in _BOX),
        ("label", pa.int32()),
        ("prediction", pa.int32()),
        ("label_name", pa.string()),
        ("prediction_name", pa.string()),
        ("n_tied", pa.int64()),
    ),
    "matches": _schema(
        ("layer", pa.string()),
        ("filter_before", pa.int32()),
        ("filter_after", pa.int32()),
        ("status", pa.string()),
        ("correlation", pa.float64()),
        ("null_correlation", pa.float64()),
        ("max_activation_before", pa.float64()),
        ("max_activation_after", pa.float64()),
    ),
    "changed_predictions": _schema(
        ("image_id", pa.int64()),
        ("split", pa.string()),
        ("label", pa.int32()),
        ("prediction_before", pa.int32()),
        ("prediction_after", pa.int32()),
        ("label_name", pa.string()),
        ("prediction_before_name", pa.string()),
        ("prediction_after_name", pa.string()),
        ("right_before", pa.bool_()),
        ("right_after", pa.bool_()),
    ),
    "runs": _schema(
        ("run", pa.string()),
        ("created", pa.timestamp("us", tz="UTC")),
        ("status", pa.string()),
        ("data", pa.string()),
        ("recipe", pa.string()),
        ("seed", pa.int64()),
        ("test_accuracy", pa.float64()),
        ("test_accuracy_ci_low", pa.float64()),
        ("test_accuracy_ci_high", pa.float64()),
        ("validation_accuracy", pa.float64()),
        ("n_steps_run", pa.int32()),
        ("n_steps_cached", pa.int32()),
        ("seconds", pa.float64()),
        ("model_digest", pa.string()),
        ("deployment", pa.string()),
        ("gate", pa.string()),
    ),
}


def digest(name: str) -> str:
    """Return a digest of a table's schema and version, for the keys of steps that write it."""
    described = f"{SCHEMA_VERSION} {SCHEMAS[name].to_string()}"
    return hashlib.sha256(described.encode()).hexdigest()[:16]
