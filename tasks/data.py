"""Task: fetch or read the images, check them and split them."""

from cnn.data import dataset as datasets
from cnn.data import sources
from cnn.pipeline.steps import LOAD_DATASET
from cnn.store.manifests import Headline
from tasks.runtime import deployment
from tasks.runtime.step_task import Work, step_task


@step_task(
    LOAD_DATASET,
    retries=len(deployment.RETRY_SECONDS),
    retry_delay_seconds=deployment.RETRY_SECONDS,
    retry_condition_fn=deployment.should_fetch_again,
)
def load_dataset(work: Work) -> Headline:
    """Write the data set as arrays that can be memory-mapped."""
    source, config = work.settings
    dataset = sources.load(source, config)
    datasets.write(work.folder, dataset)
    counts = {f"n_{name}": len(split) for name, split in dataset.splits.items()}
    return {"name": dataset.name, "n_classes": len(dataset.class_names), **counts}
