"""Shared by tests of training: settings of a small network."""

import pytest

from cnn.config.training import Training
from cnn.train import recipes


@pytest.fixture(scope="session")
def small() -> Training:
    """The recipe `spec` with few units and few steps: complete but cheap."""
    return recipes.SPEC.model_copy(
        update={
            "steps": 6,
            "batch_size": 32,
            "learning_rate": 1e-3,
            "conv1_filters": 3,
            "conv2_filters": 4,
            "dense1_units": 8,
            "log_every": 100,
        }
    )
