"""Task: train the network."""

import json
import time
from dataclasses import asdict
from typing import Any

from cnn.data import dataset as datasets
from cnn.store import exports, tables
from cnn.store.manifests import Headline
from cnn.store.steps import TRAIN_MODEL
from tasks.publish import keep_failed
from tasks.step import Work, step_task


@step_task(TRAIN_MODEL)
def train_model(work: Work) -> Headline:
    """Write the trained model, its settings and its history; a diverged one's history is kept."""
    from cnn.train import checkpoints, fit, precision

    training, seed = work.settings
    device = work.run.device()
    dataset = datasets.read(work.inputs["dataset"])
    state = work.checkpoint.state if work.checkpoint else None
    keeper = checkpoints.Keeper(
        work.run.store.checkpoints / work.key.digest,
        device,
        work.run.config.runtime.checkpoint_seconds,
    )
    precision.warn_of_emulation(training, device.kind)
    on = {"device": device.kind, "device_name": device.name, "precision": training.precision}

    def rows(history: list[fit.LogPoint]) -> list[dict[str, Any]]:
        return [asdict(point) | on for point in history]

    started = time.monotonic()
    try:
        fitted = fit.fit(
            dataset, training, seed, work.report, state, keeper.offer, xla=device.kind == "gpu"
        )
    except fit.DivergedError as error:
        keep_failed(work.run, rows(error.history), error, started)
        raise
    exports.save_model(work.folder, fitted.model, dataset)
    tables.write_rows(work.folder / "history.parquet", "history", rows(fitted.history))
    settings = {"seed": seed, **training.model_dump()}
    (work.folder / "training.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    last = fitted.history[-1]
    return {"step": last.step, "split": last.split, "accuracy": last.accuracy, "loss": last.loss}
