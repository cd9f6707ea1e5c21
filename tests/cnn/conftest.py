"""Shared by tests that compute: TensorFlow set up once, and one trained model."""

import pytest

from cnn.config.run import RuntimeConfig
from cnn.data.dataset import Dataset
from cnn.train import device, fit, recipes


@pytest.fixture(scope="session")
def prepared() -> device.Device:
    """The device, with TensorFlow imported and determinism on."""
    return device.prepare(RuntimeConfig())


@pytest.fixture(scope="session")
def trained(digits: Dataset, prepared: device.Device) -> fit.Fitted:
    """The recipe `fast`, shortened to 60 steps, trained on `digits`."""
    changes = {"precision": "float32", "steps": 60, "log_every": 20}
    settings = recipes.FAST.model_copy(update=changes)
    return fit.fit(digits, settings, seed=0)
