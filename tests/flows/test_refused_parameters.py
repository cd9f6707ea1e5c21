"""Parameters that the flow refuses, on a real Prefect server."""

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from prefect.exceptions import ParameterTypeError

from cnn.errors import ConfigError
from flows.train_and_explain import train_and_explain


@pytest.mark.parametrize(
    "train", [{"steps": {"value": "3", "__prefect_kind": "json"}}, {"steps": 3.7}, {"stpes": 3}]
)
def test_a_refused_flow_run_fails_and_writes_nothing(
    prefect_server: None, tmp_path: Path, train: dict[str, Any]
) -> None:
    """Called as a worker calls it, the flow fails at once, with our message and without a store."""
    settings: Any = {"train": train}
    state = train_and_explain(settings, store=tmp_path / "artifacts", return_state=True)
    assert state.is_failed()
    with pytest.raises(ParameterTypeError, match=r"train\.st\w+: (.* is refused|there is no such)"):
        state.result()
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"runtime": {"device": "gpu"}}, r"runtime\.device: gpu is refused"),
        ({"train": {"momentum": 0.5}}, r"train\.momentum: adam does not use it"),
    ],
)
def test_an_impossible_training_fails_the_flow_before_its_first_task(
    prefect_server: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    section: dict[str, Any],
    message: str,
) -> None:
    """Nothing is fetched, on a worker as in the command."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    settings: Any = {"data": {"source": "mnist"}, **section}
    state = train_and_explain(settings, store=tmp_path / "artifacts", return_state=True)
    assert state.is_failed()
    with pytest.raises(ConfigError, match=message):
        state.result()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
