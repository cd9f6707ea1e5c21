"""The search in one layer of a run's model: the patches of any images that most activate it."""

from pathlib import Path

from prefect import flow

from cnn.config import MineConfig
from tasks import deployed, origin
from tasks.data import load_dataset
from tasks.mined import made_by, publish_mined
from tasks.patches import mine_layer
from tasks.run import Run


@flow(
    name="mine",
    flow_run_name=origin.search_name,
    persist_result=False,
    result_serializer="json",
)
def mine(config: MineConfig, store: Path | None = None) -> Path:
    """Show which patches of any images most activate the filters of one layer.

    Returns the folder with the table, the arrays and the pictures.

    Args:
        config: the run, the layer, the images, what is looked for.
        store: root of the artifact store; FILTERSCOPE_STORE or ./artifacts by default.

    """
    deployed.prepare(config.of_run, store)
    with Run(config.of_run, store) as run:
        made = made_by(run, config.run, config.layer)
        dataset = load_dataset(run, settings=config.data) if config.data else made.dataset
        patches = mine_layer(run, made.model, dataset, settings=config.search)
        return publish_mined(run, config, made, dataset, patches)
