"""Shards give the same bytes however the images are split and the results merged."""

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn.config.run import MiningConfig
from cnn.data import dataset as datasets
from cnn.data.dataset import Dataset
from cnn.explain import patches, shards
from cnn.explain.mining import TopK
from cnn.explain.shards import Search, Shard
from cnn.model_io import exports
from cnn.store import digests, partial_results
from cnn.tables import parquet
from cnn.train import fit, recipes
from tests.cnn.explain import planted

pytestmark = pytest.mark.usefixtures("prepared")

Folders = tuple[Path, Path]  # of a model and a data set
N_IMAGES = 7_300  # eight batches, the last one not full


@pytest.fixture(scope="module")
def many(digits: Dataset) -> Dataset:
    """Test images in random order, each many times, so that many activations are tied."""
    test = digits.splits["test"]
    drawn = test.take(np.random.default_rng(0).integers(len(test), size=N_IMAGES))
    return planted.with_test(digits, replace(drawn, ids=np.arange(N_IMAGES)))


@pytest.fixture(scope="module")
def artifacts(
    trained: fit.Fitted, many: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Folders:
    """The folders of a model and of a data set."""
    model, dataset = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("dataset")
    exports.save_model(model, trained.model, many)
    datasets.write(dataset, many)
    return model, dataset


def _search(artifacts: Folders, **settings: Any) -> Search:
    model, dataset = artifacts
    config = MiningConfig(**{"layer": "conv1", **settings})
    return Search(model, digests.content_digest(model / "model.keras"), dataset, config)


def _table(rows: list[dict[str, Any]], path: Path) -> bytes:
    parquet.write_rows(path, "patches", rows)
    return path.read_bytes()


def _cut_at(ends: list[int]) -> list[Shard]:
    """Return shards that end after these numbers of batches, the last one with the images."""
    bounds = [0, *(end * 1000 for end in ends[:-1]), N_IMAGES]
    return [Shard(start, stop) for start, stop in itertools.pairwise(bounds)]


@pytest.mark.parametrize("layer", ["conv1", "conv2", pytest.param("pool", marks=pytest.mark.slow)])
def test_one_two_and_seven_shards_in_any_order_give_the_same_bytes(
    layer: str, artifacts: Folders, trained: fit.Fitted, many: Dataset, tmp_path: Path
) -> None:
    """Each result goes through a file."""
    search, path = _search(artifacts, layer=layer), tmp_path / "table.parquet"
    names = many.class_names
    rng, written = np.random.default_rng(0), set()
    for ends in ([8], [5, 8], [1, 2, 3, 4, 5, 6, 8]):
        cut = _cut_at(ends)
        for shard in cut:
            partial_results.write(
                tmp_path / shards.name(layer, shard), vars(shards.work(search, shard))
            )
        for _ in range(3):
            paths = [tmp_path / shards.name(layer, shard) for shard in rng.permutation(cut)]
            best = shards.merged((TopK(**(partial_results.read(path) or {})) for path in paths), 12)
            found = patches.describe(trained.model, many, search.settings, best, names)
            written.add(_table(found.rows, path))
    whole = planted.mine(trained.model, layer, many)
    assert written == {_table(whole.rows, path)}
    assert any(row["n_tied"] for row in whole.rows)


@pytest.mark.parametrize(
    "options", [{"one_per_image": True}, {"suppression_radius": 2}, {"lowest": True}]
)
def test_every_option_gives_the_same_however_the_images_are_split(
    options: Any, artifacts: Folders
) -> None:
    """Suppression works within an image, and a shard has whole images."""
    search = _search(artifacts, **options)
    (whole,) = (shards.work(search, shard) for shard in _cut_at([8]))
    merged = shards.merged((shards.work(search, shard) for shard in _cut_at([3, 4, 8])), 12)
    for name in ("filters", "activations", "positions", "n_tied"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))


@given(st.integers(1, 10_000_000), st.integers(1, 1000))
def test_shards_are_few_and_about_equal(n_images: int, n_at_once: int) -> None:
    """They follow each other, start at a batch, and differ by at most one batch."""
    cut = shards.cut(n_images, n_at_once)
    stops = [shard.stop for shard in cut]
    assert [shard.start for shard in cut] == [0, *stops[:-1]]
    assert stops[-1] == n_images
    assert all(shard.start % n_at_once == 0 for shard in cut)
    n_batches = [-(-(shard.stop - shard.start) // n_at_once) for shard in cut]
    assert len(cut) <= 16
    assert max(n_batches) - min(n_batches) <= 1
    assert len(cut) == 1 or min(n_batches) >= 10
    assert len(cut) == 16 or max(n_batches) < 20, "there is work for more"


def test_a_worker_reports_the_images_of_its_shard(artifacts: Folders) -> None:
    """After each batch, from 0."""
    reports: list[tuple[int, int]] = []
    shard = Shard(5000, N_IMAGES)
    shards.work(_search(artifacts), shard, lambda now: reports.append((now.done, now.total)))
    assert reports == [(1000, 2300), (2000, 2300), (2300, 2300)]


def test_a_shards_name_differs_from_any_other() -> None:
    """By layer and images: a search that is split differently reuses no result."""
    cuts = [Shard(0, 7000), Shard(0, 7300), Shard(7000, 7300)]
    names = {shards.name(layer, shard) for layer in ("conv1", "conv2") for shard in cuts}
    assert len(names) == 6
    assert shards.name("conv1", cuts[2]) == "shard-conv1-000000007000-000000007300.npz"


def test_the_model_is_loaded_once_for_many_shards(
    artifacts: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker keeps it until another layer is searched."""
    loaded: list[Path] = []
    load = exports.load_model
    monkeypatch.setattr(exports, "load_model", lambda path: loaded.append(path) or load(path))
    monkeypatch.setattr(shards, "_last", {})
    for layer in ("conv1", "conv1", "conv2"):
        for shard in _cut_at([7, 8]):
            shards.work(_search(artifacts, layer=layer), shard)
    assert len(loaded) == 2


def test_a_model_that_replaces_another_in_its_folder_is_searched(
    artifacts: Folders, trained: fit.Fitted, many: Dataset, tmp_path: Path
) -> None:
    """A worker may outlive an artifact, which a repeated training replaces."""
    model = Path(shutil.copytree(artifacts[0], tmp_path / "model"))
    before = shards.work(_search((model, artifacts[1])), Shard(0, 1000))
    other = fit.fit(many, recipes.FAST.model_copy(update={"precision": "float32", "steps": 2}), 1)
    exports.save_model(model, other.model, many)
    after = shards.work(_search((model, artifacts[1])), Shard(0, 1000))
    assert not np.array_equal(before.activations, after.activations)
