"""The search in one layer, on the model of a finished run and a real Prefect server."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from prefect.client.orchestration import get_client

from cnn.config import run as config
from cnn.config.run import MineConfig
from cnn.data import idx
from cnn.errors import ConfigError
from cnn.runs import records, searches
from cnn.tables import parquet, schemas
from flows.mine import mine
from tests.flows.conftest import Finished

Values = dict[str, Any]


@pytest.fixture
def store(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the store with one run."""
    return Path(shutil.copytree(finished.store, tmp_path / "artifacts"))


def _mine(store: Path, **values: Any) -> tuple[Path, pd.DataFrame]:
    folder = mine(config.validated(values, MineConfig), store=store)
    return folder, pd.read_parquet(folder / "patches.parquet")


def _idx_folder(folder: Path, images: Any, labels: Any) -> Path:
    folder.mkdir()
    for part in ("train", "t10k"):
        idx.write(folder / f"{part}-images-idx3-ubyte", images)
        idx.write(folder / f"{part}-labels-idx1-ubyte", labels.astype(np.uint8))
    return folder


def test_a_layer_over_the_runs_own_images_is_what_the_run_found(
    store: Path, finished: Finished
) -> None:
    """The same rows and pixels as the main job's, in a folder with pictures and a record."""
    folder, rows = _mine(store, layer="conv2", run=finished.record.run)  # others made more runs
    of_run = pd.read_parquet(finished.folder / "tables/patches.parquet")
    pd.testing.assert_frame_equal(rows, of_run[of_run["layer"] == "conv2"].reset_index(drop=True))
    for name in ("patches-conv2.npy", "projections-conv2.npy"):
        assert (folder / name).read_bytes() == (finished.folder / "arrays" / name).read_bytes()
    record = searches.read(folder)
    assert folder == store / "mined" / f"{finished.record.run}-conv2-{record.patches.key[:8]}"
    assert (record.run, record.data, record.n_patches) == (finished.record.run, "digits", len(rows))
    for name in ("patches-conv2.png", "projections-conv2.png"):
        with Image.open(folder / name) as picture:
            assert picture.width == 1040
    assert sorted(path.suffix for path in folder.iterdir()) == [
        *(".json", ".npy", ".npy", ".parquet", ".png", ".png")
    ]


def test_what_was_found_before_is_not_searched_again(store: Path) -> None:
    """The task is cached, the folder is put in place anew, with the same name."""
    first, _ = _mine(store, layer="conv1", patches_per_filter=3)
    (first / "patches.parquet").unlink()
    state = mine(
        config.validated({"layer": "conv1", "patches_per_filter": 3}, MineConfig),
        store=store,
        return_state=True,
    )
    assert state.result() == first
    assert (first / "patches.parquet").exists()
    with get_client(sync_client=True) as client:
        answer = client.request(
            "POST",
            "/task_runs/filter",
            json={"flow_runs": {"id": {"any_": [str(state.state_details.flow_run_id)]}}},
        )
    states = {item["name"]: item["state"]["name"] for item in answer.json()}
    assert states == {"mine_layer": "Cached", "publish_mined": "Completed"}


def test_other_images_are_searched_with_their_own_labels(store: Path, tmp_path: Path) -> None:
    """A folder's path is enough; predictions are named by the model, labels by the folder."""
    images = np.zeros((40, 28, 28), np.uint8)
    images[7, 3:25, 12:16] = 255
    folder = _idx_folder(tmp_path / "own", images, np.arange(40) % 2)
    _, rows = _mine(store, layer="conv2", data={"path": str(folder)}, one_per_image=True)
    best = rows[rows["rank"] == 1]
    assert set(best[best["n_tied"] == 0]["image_id"]) == {7}
    assert set(rows["label_name"]) <= {"0", "1"}
    assert len(set(rows.groupby(["filter", "image_id"]).size())) == 1, "each image once a filter"
    record = searches.read(next((store / "mined").iterdir()))
    assert record.data == "folder"
    assert record.dataset.key not in {s.ref.key for s in _record(store).steps if s.ref}


def _record(store: Path) -> records.RunRecord:
    return next(iter(records.read_all(store / "runs")))


def test_the_lowest_activations_are_those_before_the_relu(store: Path) -> None:
    """The most negative first; there is nothing to project."""
    folder, rows = _mine(store, layer="conv1", lowest=True, filters=[3, 5])
    assert set(rows["filter"]) == {3, 5}
    assert (rows["activation"] < 0).all()
    assert (rows.groupby("filter")["activation"].diff().dropna() >= 0).all()
    assert not (folder / "projections-conv1.npy").exists()
    assert (folder / "patches-conv1.png").exists()


def test_a_pool_is_mined_too(store: Path) -> None:
    """It has no kernels of its own, but patches and projections."""
    folder, rows = _mine(store, layer="pool", patches_per_filter=4, suppression_radius=1)
    assert rows["activation"].max() > 0
    assert (rows["y1"] - rows["y0"]).unique().tolist() == [22]
    assert (folder / "projections-pool.png").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layer": "conv9"}, "layer conv9: is not there; the model's convolutions and pools are "),
        ({"layer": "dense1"}, "layer dense1: has no filters; the model's convolutions and pools"),
        ({"layer": "conv2", "filters": [64]}, "filters: 64 is refused; conv2 has the filters 0 to"),
        ({"layer": "conv2", "run": "nothing"}, "run 'nothing': no run of that name in"),
    ],
)
def test_what_is_not_there_is_refused(values: Values, message: str, store: Path) -> None:
    """Nothing is put in place, and nothing is half-made."""
    with pytest.raises(ConfigError) as caught:
        _mine(store, **values)
    assert message in str(caught.value)
    assert not (store / "mined").exists()
    assert not list(store.rglob("*.part"))


def test_a_layer_that_is_not_there_is_refused_before_a_folder_is_read(
    store: Path, tmp_path: Path
) -> None:
    """Whatever the folder holds: it may be large."""
    data = {"path": str(tmp_path / "nothing")}
    with pytest.raises(ConfigError, match="layer conv9: is not there"):
        _mine(store, layer="conv9", data=data)


def test_images_of_another_size_are_refused(store: Path, tmp_path: Path) -> None:
    """Their size and the model's are named."""
    folder = _idx_folder(tmp_path / "own", np.zeros((6, 20, 28), np.uint8), np.arange(6) % 2)
    with pytest.raises(ConfigError, match="20 x 28 x 1 pixels are refused; the model reads 28 x 2"):
        _mine(store, layer="conv1", data={"path": str(folder)})


def test_more_patches_than_positions_are_refused(store: Path, tmp_path: Path) -> None:
    """Six images of 81 positions have no 487."""
    folder = _idx_folder(tmp_path / "own", np.zeros((6, 28, 28), np.uint8), np.arange(6) % 2)
    data = {"path": str(folder)}
    with pytest.raises(ConfigError, match="487 is refused; a filter of conv1 has 486 positions"):
        _mine(store, layer="conv1", patches_per_filter=487, data=data)


def test_an_empty_split_is_refused(store: Path, tmp_path: Path) -> None:
    """No validation images were held out."""
    folder = _idx_folder(tmp_path / "own", np.zeros((6, 28, 28), np.uint8), np.arange(6) % 2)
    data = {"path": str(folder), "validation_fraction": 0}
    with pytest.raises(ConfigError, match="split: validation is refused, it has no images"):
        _mine(store, layer="conv1", split="validation", data=data)


def test_a_run_that_came_to_no_model_is_refused(store: Path) -> None:
    """It is named, with what to do."""
    path = max((store / "runs").glob("2*/run.json"))
    values = json.loads(path.read_text())
    values["steps"] = [step for step in values["steps"] if step["step"] != "train_model"]
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="failed before there was a model; name another"):
        _mine(store, layer="conv1")


def test_the_table_is_the_declared_one(store: Path) -> None:
    """No rows, or many: one schema."""
    folder, _ = _mine(store, layer="conv1", patches_per_filter=1)
    assert parquet.read(folder / "patches.parquet").schema.equals(schemas.SCHEMAS["patches"])
