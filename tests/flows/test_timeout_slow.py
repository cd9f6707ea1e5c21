"""A run that takes too long ends, and leaves a checkpoint for the next."""

from pathlib import Path

import pytest
from prefect.flow_engine import FlowRunTimeoutError

from cnn.config import run as config
from flows.train_and_explain import TIMEOUT_SECONDS, train_and_explain
from tests.commands import TINY

pytestmark = pytest.mark.slow

SETTINGS = {
    "data": {"source": "digits"},
    "train": {"steps": 200_000, **TINY},
    "runtime": {"checkpoint_seconds": 0.5},
}
SECONDS = 30  # enough for TensorFlow to start and write checkpoints on a busy machine


def test_a_run_that_takes_too_long_ends_and_leaves_a_checkpoint(
    prefect_server: None, tmp_path: Path
) -> None:
    """The training stops; its lease is released, and no temporary file is left."""
    settings = config.validate(SETTINGS)
    state = train_and_explain.with_options(timeout_seconds=SECONDS)(
        settings, store=tmp_path, return_state=True
    )
    assert (state.type.value, state.name) == ("FAILED", "TimedOut")
    assert isinstance(state.data, FlowRunTimeoutError)
    checkpoints = list(tmp_path.glob("checkpoints/*/step-*.npz"))
    assert checkpoints
    assert not list(tmp_path.glob("checkpoints/*/lease.json"))
    assert not list(tmp_path.rglob("*.part"))


def test_the_timeout_is_half_a_day() -> None:
    """It applies to every run, however it is started."""
    assert train_and_explain.timeout_seconds == TIMEOUT_SECONDS == 43_200
