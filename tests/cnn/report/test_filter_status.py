"""The rule for dead, duplicate and specialist filters, at its thresholds and on a real layer."""

from typing import Any

import numpy as np
import pytest

from cnn.data.dataset import Dataset, Split
from cnn.explain import filters
from cnn.report import filter_status
from cnn.report.filter_status import FilterStatus
from tests.cnn.report.conftest import train_briefly

NAMES = ("zero", "one", "two")
PLAIN: dict[str, Any] = {
    "filter": 0,
    "dead": False,
    "fraction_active": 0.3,
    "selectivity": 0.2,
    "preferred_label": 2.0,
    "nearest_filter": 3,
    "nearest_cosine": 0.4,
    "correlated_filter": 4.0,
    "correlation": 0.5,
}
UNKNOWN = dict.fromkeys(("selectivity", "preferred_label", "correlated_filter", "correlation"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"dead": True, "fraction_active": 0.0, **UNKNOWN}, "dead"),
        ({"dead": True, "nearest_cosine": 1.0}, "dead"),
        ({"nearest_cosine": 0.95}, "duplicate of 3"),
        ({"nearest_cosine": 0.949}, ""),
        ({"nearest_cosine": -1.0}, ""),
        ({"correlation": 0.95}, "duplicate of 4"),
        ({"correlation": 0.949}, ""),
        ({"nearest_cosine": 0.99, "correlation": 0.99}, "duplicate of 3"),
        ({"correlation": 0.99, "selectivity": 1.0}, "duplicate of 4"),
        ({"selectivity": 0.5}, "specialist for two"),
        ({"selectivity": 0.499}, ""),
        ({"selectivity": 1.0, "fraction_active": 0.001}, "specialist for two"),
        ({"selectivity": 1.0, "fraction_active": 0.0009}, ""),
        ({**UNKNOWN, "nearest_filter": None, "nearest_cosine": None}, ""),
    ],
)
def test_the_status_is_the_first_that_applies(changes: dict[str, Any], words: str) -> None:
    """A value at the threshold gives the status; an unknown value never does."""
    assert filter_status.of({**PLAIN, **changes}).words(NAMES) == words


def test_rows_are_ordered_by_status_and_then_by_number() -> None:
    """Dead filters, duplicates, specialists, then the others."""
    dead: dict[str, Any] = {"dead": True}
    changes = [{}, {"selectivity": 0.9}, {"nearest_cosine": 0.99}, dead, {}, dead]
    rows = [{**PLAIN, **change, "filter": f} for f, change in enumerate(changes)]
    assert [row["filter"] for row in filter_status.ordered(rows)] == [3, 5, 2, 1, 0, 4]
    assert filter_status.counted(rows) == "2 dead, 1 duplicate, 1 specialist"


def _stripes(rng: np.random.Generator, n: int) -> Split:
    """Return noisy images, with a vertical bar in class 1 and a horizontal one in class 2."""
    images = rng.integers(0, 40, (n, 28, 28, 1), dtype=np.uint8)
    labels = np.arange(n, dtype=np.int64) % 3
    images[labels == 1, :, 10:16] = 255
    images[labels == 2, 10:16] = 255
    return Split(images, labels, np.arange(n))


def test_planted_filters_get_their_status(rng: np.random.Generator, prepared: object) -> None:
    """A dead one, two that differ only in strength, one that detects vertical bars."""
    splits = {name: _stripes(rng, 96) for name in ("train", "validation", "test")}
    data = Dataset("folder", NAMES, splits, {})
    model = train_briefly(data, steps=1, log_every=1).model
    kernels, biases = (np.array(value) for value in model.get_layer("conv1").get_weights())
    kernels[:], biases[:] = rng.normal(size=kernels.shape) / 12, 0.1
    kernels[..., 0], biases[0] = 0, -1
    kernels[..., 2], biases[2] = 2 * kernels[..., 4], 2 * biases[4]
    kernels[..., 5], biases[5] = -1 / 72, -0.3
    kernels[:, 3:9, :, 5] = 1 / 72
    model.get_layer("conv1").set_weights([kernels, biases])
    statuses = [filter_status.of(row) for row in filters.describe(model, "conv1", data).rows]
    assert statuses[0] == FilterStatus("dead")
    assert statuses[2] == FilterStatus("duplicate", other=4)
    assert statuses[4] == FilterStatus("duplicate", other=2)
    assert statuses[5] == FilterStatus("specialist", label=1)
    assert [statuses[f].kind for f in (1, 3)] == ["", ""]
