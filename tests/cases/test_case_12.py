"""Case 12: "Your input ran out of data"."""

import logging
from pathlib import Path

import numpy as np
import pytest

from cnn.config.run import RuntimeConfig
from cnn.train import device, fit, order, recipes
from tests.cases import inputs


@pytest.mark.parametrize(
    ("n_images", "batch_size", "n_steps", "n_times"),
    [(70, 32, 35, 16), (21, 32, 21, 32), (7, 64, 7, 64), (100, 1, 300, 3), (64, 64, 5, 5)],
)
def test_each_image_is_seen_equally_often(
    n_images: int, batch_size: int, n_steps: int, n_times: int
) -> None:
    """Batches span permutations; none is short, none is dropped, at whatever step one begins."""
    drawn = order.batches(3, n_images, batch_size, 0, n_steps)
    assert drawn.shape == (n_steps, batch_size)
    assert np.bincount(drawn.ravel(), minlength=n_images).tolist() == [n_times] * n_images
    for first in (0, 1, n_steps // 2):
        later = order.batches(3, n_images, batch_size, first, n_steps - first)
        np.testing.assert_array_equal(later, drawn[first:])


@pytest.mark.parametrize("n_images", [70, 7])
def test_each_epoch_is_a_permutation(n_images: int) -> None:
    """Between two multiples of the number of images every image is drawn once."""
    drawn = order.batches(0, n_images, 32, 0, n_images).ravel()
    epochs = drawn.reshape(-1, n_images)
    assert (np.sort(epochs, axis=1) == np.arange(n_images)).all()
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


@pytest.mark.parametrize("fraction", [0.0, 0.2])
def test_every_step_is_trained_and_every_log_point_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fraction: float
) -> None:
    """70 images, batches of 32, 35 steps; what is measured is measured on the same images."""
    device.prepare(RuntimeConfig())
    folder = inputs.write_set(tmp_path, inputs.good_set(70, 21))
    dataset = inputs.load(folder, validation_fraction=fraction)
    changes = {
        "precision": "float32",
        "batch_size": 32,
        "steps": 35,
        "log_every": 5,
        "learning_rate": 1e-12,
    }
    settings = recipes.FAST.model_copy(update={**changes, "dense1_units": 8, "conv2_filters": 4})
    with caplog.at_level(logging.DEBUG):
        fitted = fit.fit(dataset, settings, seed=0)
    points = {
        split: [point for point in fitted.history if point.split == split]
        for split in ("train", "validation")
    }
    assert [point.step for point in points["train"]] == list(range(5, 36, 5))
    assert points["train"][-1].n_images_seen == 35 * 32
    assert len(points["validation"]) == (7 if fraction else 0)
    # The weights hardly move, so the same images have the same loss each time.
    losses = [point.loss or 0.0 for point in points["validation"]]
    assert np.ptp(losses or [0.0]) < 1e-5
    assert "ran out of data" not in caplog.text
