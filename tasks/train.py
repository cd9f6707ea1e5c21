"""Task: train the network."""

import json
import time
from dataclasses import asdict

from cnn.data import dataset as datasets
from cnn.store import exports, tables
from cnn.store.manifests import Headline
from cnn.store.steps import TRAIN_MODEL
from tasks.publish import keep_failed
from tasks.step import Work, step_task


@step_task(TRAIN_MODEL)
def train_model(work: Work) -> Headline:
    """Write the trained model, its settings and its history; a diverged one's history is kept."""
    from cnn.train import checkpoints, fit

    training, seed = work.settings
    dataset = datasets.read(work.inputs["dataset"])
    state = work.checkpoint.state if work.checkpoint else None
    keeper = checkpoints.Keeper(
        work.run.store.checkpoints / work.key.digest,
        work.run.device(),
        work.run.config.runtime.checkpoint_seconds,
    )
    started = time.monotonic()
    try:
        fitted = fit.fit(dataset, training, seed, work.report, state, keeper.offer)
    except fit.DivergedError as error:
        keep_failed(work.run, [asdict(point) for point in error.history], error, started)
        raise
    exports.save_model(work.folder, fitted.model, dataset)
    tables.write_rows(
        work.folder / "history.parquet", "history", [asdict(point) for point in fitted.history]
    )
    settings = {"seed": seed, **training.model_dump()}
    (work.folder / "training.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    last = fitted.history[-1]
    return {"step": last.step, "split": last.split, "accuracy": last.accuracy, "loss": last.loss}
