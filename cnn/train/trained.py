"""Write the result of a training: the model, its settings and its history."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cnn.config.training import Training
from cnn.data.dataset import Dataset
from cnn.model_io import exports
from cnn.tables import parquet
from cnn.train.device import Device
from cnn.train.fit import Fitted, LogPoint


def write(
    folder: Path, fitted: Fitted, dataset: Dataset, settings: Training, seed: int, device: Device
) -> None:
    """Write model.keras, model.json, training.json and history.parquet."""
    exports.save_model(folder, fitted.model, dataset)
    write_history(folder, fitted.history, settings, device)
    text = json.dumps({"seed": seed, **settings.model_dump()}, indent=2)
    (folder / "training.json").write_text(text, encoding="utf-8")


def write_history(
    folder: Path, history: Iterable[LogPoint], settings: Training, device: Device
) -> None:
    """Write history.parquet, one row per log point and split."""
    computed_by: dict[str, Any] = {
        "device": device.kind,
        "device_name": device.name,
        "precision": settings.precision,
    }
    rows = [asdict(point) | computed_by for point in history]
    parquet.write_rows(folder / "history.parquet", "history", rows)
