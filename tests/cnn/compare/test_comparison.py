"""A comparison lists what differs between two models, and refuses what it cannot compare."""

from typing import Any

import numpy as np
import pytest

from cnn.compare import comparison
from cnn.compare.comparison import Comparison, ModelOnData
from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError, ConfigError
from cnn.explain import activations
from cnn.train import fit
from tests.cnn.explain import planted

pytestmark = pytest.mark.usefixtures("prepared")


def build(
    digits: Dataset, shape: tuple[int, int, int] = (28, 28, 1), **changes: Any
) -> ModelOnData:
    """Return a small untrained model with the classes of `digits`."""
    network = planted.build(shape, conv1_filters=4, conv2_filters=6, dense1_units=8, **changes)
    return ModelOnData(network, digits.class_names)


@pytest.fixture(scope="module")
def found(trained: fit.Fitted, digits: Dataset) -> Comparison:
    """A trained model, and itself with one filter dead and one class never predicted."""
    other = planted.copied(trained.model)
    for layer, at in (("conv1", 3), ("logits", 7)):
        with planted.weights(other, layer) as (_, bias):
            bias[at] = -1000
    sides = ModelOnData(trained.model, digits.class_names), ModelOnData(other, digits.class_names)
    return comparison.compare(*sides, digits)


def test_every_prediction_that_changed_has_a_row(
    found: Comparison, trained: fit.Fitted, digits: Dataset
) -> None:
    """With the image id, the names, and whether it is right, before and after."""
    test = digits.splits["test"]
    before = activations.predict(trained.model, test.images)
    assert {row["image_id"] for row in found.changed} >= set(test.ids[before == 7].tolist())
    index = {int(image_id): i for i, image_id in enumerate(test.ids)}
    for row in found.changed:
        i = index[row["image_id"]]
        assert row["label"] == test.labels[i]
        assert row["prediction_before"] == before[i] != row["prediction_after"] != 7
        assert row["prediction_before_name"] == digits.class_names[before[i]]
        assert row["prediction_after_name"] == digits.class_names[row["prediction_after"]]
        assert row["right_before"] == (before[i] == test.labels[i])
        assert row["right_after"] == (row["prediction_after"] == test.labels[i])


def test_the_summary_counts_the_rows(found: Comparison) -> None:
    """Those of both tables."""
    summary = found.summary()
    assert (summary["split"], summary["n_images"]) == ("test", 257)
    assert summary["n_changed_predictions"] == len(found.changed)
    assert summary["n_became_wrong"] == sum(row["right_before"] for row in found.changed) > 0
    assert summary["n_became_right"] == sum(row["right_after"] for row in found.changed)
    for counts in summary["layers"]:
        rows = [row for row in found.matches if row["layer"] == counts["layer"]]
        for status in ("same", "changed", "dead", "lost", "new"):
            assert counts[status] == sum(row["status"] == status for row in rows)


def test_a_filter_that_died_is_lost_and_the_dead_one_is_new(
    found: Comparison, trained: fit.Fitted, digits: Dataset
) -> None:
    """Every row has the largest activations of both filters, 0 for one that never fires."""
    images = digits.splits["test"].images
    peaks = np.concatenate(
        [batch.peaks for batch in activations.stream(trained.model, "conv1", images)]
    )
    rows = [row for row in found.matches if row["layer"] == "conv1"]
    for row in rows:
        if row["filter_before"] is not None:
            largest = peaks[:, row["filter_before"]].max()
            assert row["max_activation_before"] == pytest.approx(largest, rel=1e-6)
    alone = {row["status"]: row for row in rows if row["status"] in ("lost", "new")}
    assert (alone["lost"]["filter_before"], alone["lost"]["max_activation_after"]) == (3, None)
    assert (alone["new"]["filter_after"], alone["new"]["max_activation_after"]) == (3, 0.0)


def test_classes_are_compared_by_name(trained: fit.Fitted, digits: Dataset) -> None:
    """A model with its classes in reverse order, and named so, predicts the same."""
    other = planted.copied(trained.model)
    weights, bias = other.get_layer("logits").get_weights()
    other.get_layer("logits").set_weights([weights[:, ::-1], bias[::-1]])
    before = ModelOnData(trained.model, digits.class_names)
    found = comparison.compare(before, ModelOnData(other, digits.class_names[::-1]), digits)
    assert found.changed == []
    renamed = ModelOnData(other, [*digits.class_names[:0:-1], "none of them"])
    rows = comparison.compare(before, renamed, digits).changed
    assert {row["prediction_before_name"] for row in rows} == {"0"}
    assert {(row["prediction_after_name"], row["prediction_after"]) for row in rows} == {
        ("none of them", None)
    }
    assert not any(row["right_after"] for row in rows)


def test_a_layer_that_cannot_be_compared_does_not_fail_the_others(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing layer and one of another size have their reasons; the rest is compared."""
    real = activations.explained_layers
    monkeypatch.setattr(activations, "explained_layers", lambda model: ["conv9", *real(model)])
    found = comparison.compare(build(digits), build(digits, conv1_kernel=11), digits)
    assert found.left_out == {"conv9": "layer conv9: the first model has no layer of that name"}
    assert {row["layer"] for row in found.matches} == {"conv1", "conv2"}
    found = comparison.compare(build(digits), build(digits, seed=1, conv1_kernel=8), digits)
    assert found.left_out["conv1"] == (
        "layer conv1: feature maps of 9 x 9 and 11 x 11 positions cannot be compared"
    )
    assert found.matches == found.summary()["layers"] == []
    assert len(found.changed) > 0


def test_images_that_a_model_does_not_read_are_refused(digits: Dataset) -> None:
    """The message names the model and both sizes."""
    small = build(digits, (20, 20, 1))
    sizes = "20 x 20 x 1 pixels, the data set has 28 x 28 x 1; choose runs whose images have the"
    with pytest.raises(ConfigError, match=f"^the first model reads images of {sizes} same size$"):
        comparison.compare(small, build(digits), digits)
    with pytest.raises(ConfigError, match=r"^the second model reads images of 20 x 20 x 1"):
        comparison.compare(build(digits), small, digits)


def test_a_data_set_without_test_images_is_refused(digits: Dataset) -> None:
    """There is nothing to compare on."""
    empty = digits.splits["test"].take(np.empty(0, np.int64))
    with pytest.raises(ConfigError, match="has no test images"):
        comparison.compare(build(digits), build(digits), planted.with_test(digits, empty))


def test_a_damaged_or_foreign_model_is_refused(digits: Dataset) -> None:
    """Damage in a layer that is not compared; class names that are not as many as outputs."""
    damaged = build(digits, conv1_kernel=8)
    with planted.weights(damaged.model, "dense1") as (kernel, _):
        kernel[0, 0] = np.nan
    with pytest.raises(ArtifactError, match="weights of dense1 are not finite"):
        comparison.compare(build(digits), damaged, digits)
    foreign = ModelOnData(build(digits).model, ("only one",))
    with pytest.raises(ArtifactError, match="the first model was not made by filterscope"):
        comparison.compare(foreign, build(digits), digits)
