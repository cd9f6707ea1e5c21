"""Parameters that the flow refuses, on a real Prefect server."""

from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError

from flows.train_and_explain import train_and_explain


@pytest.mark.parametrize(
    "train", [{"steps": {"value": "3", "__prefect_kind": "json"}}, {"steps": 3.7}, {"stpes": 3}]
)
def test_a_refused_flow_run_fails_and_writes_nothing(
    prefect_server: None, tmp_path: Path, train: dict[str, Any]
) -> None:
    """The flow, called as a worker calls it: failed at once, in our words, without a store."""
    settings: Any = {"train": train}
    state = train_and_explain(settings, store=tmp_path / "artifacts", return_state=True)
    assert state.is_failed()
    with pytest.raises(ParameterTypeError, match=r"train\.st\w+: (.* is refused|there is no such)"):
        state.result()
    assert not (tmp_path / "artifacts").exists()
