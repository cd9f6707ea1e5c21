"""The search in one layer, on the model of a finished run and a real Prefect server."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnn.config import run as config
from cnn.config.run import MineConfig
from cnn.errors import ConfigError
from cnn.runs import records, searches
from cnn.tables import parquet, schemas
from flows.mine import mine
from tests.flows.conftest import Finished, idx_folder, task_states

Values = dict[str, Any]


def _mine(store: Path, **values: Any) -> tuple[Path, pd.DataFrame]:
    folder = mine(config.validated(values, MineConfig), store=store)
    return folder, pd.read_parquet(folder / "patches.parquet")


def test_a_search_of_the_runs_own_images_finds_what_the_run_found(
    store: Path, finished: Finished
) -> None:
    """Rows, schema and pixels equal the main job's; the folder also has figures and a record."""
    folder, rows = _mine(store, layer="conv2", run=finished.record.run)  # the store has more runs
    assert parquet.read(folder / "patches.parquet").schema.equals(schemas.SCHEMAS["patches"])
    of_run = pd.read_parquet(finished.folder / "tables/patches.parquet")
    pd.testing.assert_frame_equal(rows, of_run[of_run["layer"] == "conv2"].reset_index(drop=True))
    for name in ("patches-conv2.npy", "projections-conv2.npy"):
        assert (folder / name).read_bytes() == (finished.folder / "arrays" / name).read_bytes()
    record = searches.read(folder)
    assert folder == store / "mined" / f"{finished.record.run}-conv2-{record.patches.key[:8]}"
    assert (record.run, record.data, record.n_patches) == (finished.record.run, "digits", len(rows))
    for name in ("patches-conv2.png", "projections-conv2.png"):
        with Image.open(folder / name) as figure:
            assert figure.width == 1040
    assert sorted(path.suffix for path in folder.iterdir()) == [
        *(".json", ".npy", ".npy", ".parquet", ".png", ".png")
    ]


def test_a_repeated_search_is_cached(store: Path) -> None:
    """Its folder is published again under the same name."""
    values = {"layer": "conv1", "patches_per_filter": 3}
    first, _ = _mine(store, **values)
    (first / "patches.parquet").unlink()
    state = mine(config.validated(values, MineConfig), store=store, return_state=True)
    assert state.result() == first
    assert (first / "patches.parquet").exists()
    states = task_states(state.state_details.flow_run_id)
    assert states == {"mine_layer": "Cached", "publish_mined": "Completed"}


def test_other_images_are_searched_with_their_own_labels(store: Path, tmp_path: Path) -> None:
    """Only a folder's path is needed; class names of labels come from the folder."""
    images = np.zeros((40, 28, 28), np.uint8)
    images[7, 3:25, 12:16] = 255
    folder = idx_folder(tmp_path / "own", images, np.arange(40) % 2)
    _, rows = _mine(store, layer="conv2", data={"path": str(folder)}, one_per_image=True)
    best = rows[rows["rank"] == 1]
    assert set(best[best["n_tied"] == 0]["image_id"]) == {7}
    assert set(rows["label_name"]) <= {"0", "1"}
    assert len(set(rows.groupby(["filter", "image_id"]).size())) == 1, "each image once a filter"
    record = searches.read(next((store / "mined").iterdir()))
    assert record.data == "folder"
    of_run = next(iter(records.read_all(store / "runs")))
    assert record.dataset.key not in {step.ref.key for step in of_run.steps if step.ref}


def test_the_lowest_activations_are_those_before_the_relu(store: Path) -> None:
    """The most negative come first; they have no projections."""
    folder, rows = _mine(store, layer="conv1", lowest=True, filters=[3, 5])
    assert set(rows["filter"]) == {3, 5}
    assert (rows["activation"] < 0).all()
    assert (rows.groupby("filter")["activation"].diff().dropna() >= 0).all()
    assert not (folder / "projections-conv1.npy").exists()
    assert (folder / "patches-conv1.png").exists()


def test_a_pool_can_be_searched(store: Path) -> None:
    """A pool has no kernels, but it has patches and projections."""
    folder, rows = _mine(store, layer="pool", patches_per_filter=4, suppression_radius=1)
    assert rows["activation"].max() > 0
    assert (rows["y1"] - rows["y0"]).unique().tolist() == [22]
    assert (folder / "projections-pool.png").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layer": "conv9"}, "layer conv9: not found; the model's convolutions and pools are "),
        ({"layer": "dense1"}, "layer dense1: not a convolution or pool; the model's convolutions"),
        ({"layer": "conv2", "filters": [64]}, "filters: 64 is refused; conv2 has filters 0 to"),
        ({"layer": "conv2", "run": "nothing"}, "run 'nothing': no run of that name in"),
    ],
)
def test_an_unknown_layer_filter_or_run_is_refused(
    values: Values, message: str, store: Path
) -> None:
    """Nothing is published and no temporary file is left."""
    with pytest.raises(ConfigError) as caught:
        _mine(store, **values)
    assert message in str(caught.value)
    assert not (store / "mined").exists()
    assert not list(store.rglob("*.part"))


def test_an_unknown_layer_is_refused_before_a_folder_is_read(store: Path, tmp_path: Path) -> None:
    """The folder may be large."""
    data = {"path": str(tmp_path / "nothing")}
    with pytest.raises(ConfigError, match="layer conv9: not found"):
        _mine(store, layer="conv9", data=data)


@pytest.mark.parametrize(
    ("height", "values", "data", "message"),
    [
        (20, {}, {}, "20 x 28 x 1 pixels are refused; the model reads 28 x 2"),
        (
            28,
            {"patches_per_filter": 487},  # six images of 81 positions
            {},
            "487 is refused; a filter of conv1 has 486 positions",
        ),
        (
            28,
            {"split": "validation"},
            {"validation_fraction": 0},
            "split: validation is refused; this data set has no",
        ),
    ],
    ids=["image size", "too many patches", "empty split"],
)
def test_images_that_do_not_fit_the_search_are_refused(
    store: Path, tmp_path: Path, height: int, values: Values, data: Values, message: str
) -> None:
    """Images of another size, fewer positions than patches, a split without images."""
    folder = idx_folder(tmp_path / "own", np.zeros((6, height, 28), np.uint8), np.arange(6) % 2)
    with pytest.raises(ConfigError, match=message):
        _mine(store, layer="conv1", data={"path": str(folder), **data}, **values)


def test_a_run_without_a_model_is_refused(store: Path) -> None:
    """The message says what to do."""
    path = max((store / "runs").glob("2*/run.json"))
    values = json.loads(path.read_text())
    values["steps"] = [step for step in values["steps"] if step["step"] != "train_model"]
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="failed before it had a model; name another run"):
        _mine(store, layer="conv1")
