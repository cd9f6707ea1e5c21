"""The search in one layer of a run's model: the patches, of any images, that most activate it."""

from pathlib import Path

from prefect import flow

from cnn.config.run import MineConfig
from tasks.data import load_dataset
from tasks.mine import find_run, publish_search
from tasks.patches import mine_layer
from tasks.runtime import deployment, flow_run
from tasks.runtime.context import RunContext


@flow(
    name="mine",
    flow_run_name=flow_run.search_name,
    persist_result=False,
    result_serializer="json",
)
def mine(config: MineConfig, store: Path | None = None) -> Path:
    """Show which patches of any images most activate the filters of one layer.

    Returns the folder with the table, the arrays and the figures.

    Args:
        config: the run, the layer, the images and the options of the search.
        store: root of the artifact store; FILTERSCOPE_STORE or ./artifacts by default.

    """
    deployment.prepare(config.of_run, store)
    with RunContext(config.of_run, store) as run:
        earlier = find_run(run, config.run, config.layer)
        dataset = load_dataset(run, settings=config.data) if config.data else earlier.dataset
        patches = mine_layer(run, earlier.model, dataset, settings=config.search)
        return publish_search(run, config, earlier, dataset, patches)
