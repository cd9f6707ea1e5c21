"""Task: train the network."""

import time

from cnn.data import dataset as datasets
from cnn.pipeline.steps import TRAIN_MODEL
from cnn.store.manifests import Headline
from tasks.publish import keep_failed
from tasks.runtime.step_task import Work, step_task


@step_task(TRAIN_MODEL)
def train_model(work: Work) -> Headline:
    """Write the model, its settings and its history; of a diverged training, only the history."""
    from cnn.explain import patches
    from cnn.train import checkpoints, fit, networks, precision, trained

    training, seed = work.settings
    device = work.run.device()
    dataset = datasets.read(work.inputs["dataset"])
    patches.refuse_unfit(
        networks.build(training, dataset.image_shape, len(dataset.class_names), seed),
        dataset,
        work.run.config.explain,
    )
    state = work.checkpoint.state if work.checkpoint else None
    writer = checkpoints.CheckpointWriter(
        work.run.store.checkpoints / work.key.digest,
        device,
        work.run.config.runtime.checkpoint_seconds,
    )
    precision.warn_of_emulation(training, device.kind)
    started = time.monotonic()
    try:
        fitted = fit.fit(
            dataset, training, seed, work.report, state, writer.offer, xla=device.kind == "gpu"
        )
    except fit.DivergedError as error:
        history = error.history
        keep_failed(
            work.run,
            lambda folder: trained.write_history(folder, history, training, device),
            error,
            started,
        )
        raise
    trained.write(work.folder, fitted, dataset, training, seed, device)
    last = fitted.history[-1]
    return {"step": last.step, "split": last.split, "accuracy": last.accuracy, "loss": last.loss}
