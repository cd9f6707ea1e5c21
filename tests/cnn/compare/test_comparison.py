"""A comparison says what differs between two models, by class name, and fails for a reason."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cnn.compare import comparison
from cnn.compare.comparison import Comparison, ModelOnData
from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError, ConfigError
from cnn.explain import activations
from cnn.train import fit, networks, recipes

pytestmark = pytest.mark.usefixtures("prepared")

SMALL = recipes.SPEC.model_copy(update={"conv1_filters": 4, "conv2_filters": 6, "dense1_units": 8})


def copied(network: Any) -> Any:
    import keras

    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy


def build(digits: Dataset, seed: int = 0, **changes: Any) -> ModelOnData:
    settings = SMALL.model_copy(update=changes)
    return ModelOnData(networks.build(settings, (28, 28, 1), 10, seed), digits.class_names)


@pytest.fixture(scope="module")
def found(trained: fit.Fitted, digits: Dataset) -> Comparison:
    """A trained model beside itself with one filter dead and one class never predicted."""
    other = copied(trained.model)
    kernel, bias = other.get_layer("conv1").get_weights()
    bias[3] = -1000
    other.get_layer("conv1").set_weights([kernel, bias])
    weights, bias = other.get_layer("logits").get_weights()
    bias[7] = -1000
    other.get_layer("logits").set_weights([weights, bias])
    sides = ModelOnData(trained.model, digits.class_names), ModelOnData(other, digits.class_names)
    return comparison.compare(*sides, digits)


def test_every_prediction_that_changed_has_a_row(
    found: Comparison, trained: fit.Fitted, digits: Dataset
) -> None:
    """With ids, names and whether it is right, as both models say when they are asked."""
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
    """Of both tables, and it is plain enough for JSON."""
    told = found.summary()
    assert (told["split"], told["n_images"]) == ("test", 257)
    assert told["n_changed_predictions"] == len(found.changed)
    assert told["n_became_wrong"] == sum(row["right_before"] for row in found.changed) > 0
    assert told["n_became_right"] == sum(row["right_after"] for row in found.changed)
    for counts in told["layers"]:
        rows = [row for row in found.matches if row["layer"] == counts["layer"]]
        for status in ("same", "changed", "dead", "lost", "new"):
            assert counts[status] == sum(row["status"] == status for row in rows)


def test_a_filter_that_died_is_lost_and_the_dead_one_is_told(
    found: Comparison, trained: fit.Fitted, digits: Dataset
) -> None:
    """Every row has both largest activations, as the layer gives them; 0 where it never fires."""
    images = digits.splits["test"].images
    peaks = np.concatenate(
        [batch.peaks for batch in activations.stream(trained.model, "conv1", images)]
    )
    rows = [row for row in found.matches if row["layer"] == "conv1"]
    for row in rows:
        if row["filter_before"] is not None:
            wanted = peaks[:, row["filter_before"]].max()
            assert row["max_activation_before"] == pytest.approx(wanted, rel=1e-6)
    alone = {row["status"]: row for row in rows if row["status"] in ("lost", "new")}
    assert (alone["lost"]["filter_before"], alone["lost"]["max_activation_after"]) == (3, None)
    assert (alone["new"]["filter_after"], alone["new"]["max_activation_after"]) == (3, 0.0)


def test_classes_are_compared_by_name(trained: fit.Fitted, digits: Dataset) -> None:
    """A model that counts the classes backwards, but names them so, says the same."""
    other = copied(trained.model)
    weights, bias = other.get_layer("logits").get_weights()
    other.get_layer("logits").set_weights([weights[:, ::-1], bias[::-1]])
    before = ModelOnData(trained.model, digits.class_names)
    found = comparison.compare(before, ModelOnData(other, digits.class_names[::-1]), digits)
    assert found.changed == []
    strange = ModelOnData(other, [*digits.class_names[:0:-1], "none of them"])
    rows = comparison.compare(before, strange, digits).changed
    assert {row["prediction_before_name"] for row in rows} == {"0"}
    assert {(row["prediction_after_name"], row["prediction_after"]) for row in rows} == {
        ("none of them", None)
    }
    assert not any(row["right_after"] for row in rows)


def test_a_layer_that_cannot_be_compared_does_not_fail_the_others(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is missing and one with other maps have their reasons; the rest is told."""
    real = activations.explained_layers
    monkeypatch.setattr(activations, "explained_layers", lambda model: ["conv9", *real(model)])
    found = comparison.compare(build(digits), build(digits, conv1_kernel=11), digits)
    assert found.left_out == {"conv9": "layer conv9: the first model has none of that name"}
    assert {row["layer"] for row in found.matches} == {"conv1", "conv2"}
    found = comparison.compare(build(digits), build(digits, seed=1, conv1_kernel=8), digits)
    assert found.left_out["conv1"] == (
        "layer conv1: maps of 9 x 9 and of 11 x 11 positions cannot be compared"
    )
    assert found.matches == found.summary()["layers"] == []
    assert len(found.changed) > 0


def test_images_that_a_model_does_not_read_are_refused(digits: Dataset) -> None:
    """It is said which model, and both sizes."""
    small = ModelOnData(networks.build(SMALL, (20, 20, 1), 10, 0), digits.class_names)
    with pytest.raises(ConfigError, match="first model reads images of 20 x 20 x 1 pixels, the"):
        comparison.compare(small, build(digits), digits)
    with pytest.raises(ConfigError, match="the second model reads images of 20 x 20 x 1"):
        comparison.compare(build(digits), small, digits)


def test_a_data_set_without_test_images_is_refused(digits: Dataset) -> None:
    """There is nothing to compare on."""
    empty = digits.splits["test"].take(np.empty(0, np.int64))
    without = replace(digits, splits={**digits.splits, "test": empty})
    with pytest.raises(ConfigError, match="has no test images"):
        comparison.compare(build(digits), build(digits), without)


def test_a_damaged_or_foreign_model_is_refused(digits: Dataset) -> None:
    """A NaN in any layer, whatever is compared; class names that are not as many as outputs."""
    damaged = build(digits, conv1_kernel=8)
    weights, bias = damaged.model.get_layer("dense1").get_weights()
    weights[0, 0] = np.nan
    damaged.model.get_layer("dense1").set_weights([weights, bias])
    with pytest.raises(ArtifactError, match="weights of dense1 are not finite"):
        comparison.compare(build(digits), damaged, digits)
    foreign = ModelOnData(build(digits).model, ("only one",))
    with pytest.raises(ArtifactError, match="the first model is not one that filterscope made"):
        comparison.compare(foreign, build(digits), digits)
