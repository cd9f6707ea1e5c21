"""The device and the precision of the training, as a run records them."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cnn.config import run as config
from cnn.runs import records
from cnn.store import manifests
from cnn.train import device, fit, precision
from cnn.train.device import Device
from flows.train_and_explain import train_and_explain

SHORT = {
    **{"recipe": "spec", "steps": 2, "batch_size": 8, "precision": "bfloat16"},
    **{"conv1_filters": 2, "conv2_filters": 3, "dense1_units": 6},
}


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_device_and_precision_are_recorded_and_emulation_is_logged(
    prefect_server: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    """In history and manifest; only a GPU's train step uses XLA, only a CPU emulates bfloat16."""
    given: list[bool] = []
    train = fit.fit

    def watched(*words: Any, xla: bool) -> fit.Fitted:
        given.append(xla)
        return train(*words)

    monkeypatch.setattr(device, "prepare", lambda runtime: Device(kind, "Some device", 2))
    monkeypatch.setattr(precision, "_CPUINFO", tmp_path / "no such file")
    monkeypatch.setattr(fit, "fit", watched)
    settings = config.validate({"data": {"source": "digits"}, "train": SHORT})
    folder = train_and_explain(settings, store=tmp_path / "artifacts")
    assert isinstance(folder, Path)

    assert given == [kind == "gpu"]
    history = pd.read_parquet(folder / "tables/history.parquet")
    columns = ["device", "device_name", "precision"]
    assert {tuple(row) for row in history[columns].to_numpy()} == {
        (kind, "Some device", "bfloat16")
    }
    refs = {step.ref.kind: step.ref for step in records.read(folder).steps if step.ref}
    found = {
        name: manifests.read(tmp_path / "artifacts/store" / name / refs[name].key).environment
        for name in ("model", "evaluation")
    }
    assert found["model"]["device"] == {"kind": kind, "name": "Some device", "threads": 2}
    assert [found[name]["precision"] for name in found] == ["bfloat16", "float32"]
    assert ("this processor emulates bfloat16" in caplog.text) == (kind == "cpu")
