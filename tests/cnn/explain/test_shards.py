"""Shards: the same bytes whatever the cut and the order; what was kept is not searched again."""

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
from cnn.explain import activations, patches, shards
from cnn.explain.mining import TopK
from cnn.explain.shards import Search, Shard
from cnn.model_io import exports
from cnn.store import digests, partial_results
from cnn.tables import parquet
from cnn.train import fit, recipes

pytestmark = pytest.mark.usefixtures("prepared")

N_IMAGES = 7_300  # eight batches, the last one not full


@pytest.fixture(scope="module")
def many(digits: Dataset) -> Dataset:
    """Test images in random order, each several times: many ties."""
    test = digits.splits["test"]
    drawn = test.take(np.random.default_rng(0).integers(len(test), size=N_IMAGES))
    whole = replace(drawn, ids=np.arange(N_IMAGES))
    return replace(digits, splits={**digits.splits, "test": whole})


@pytest.fixture(scope="module")
def artifacts(
    trained: fit.Fitted, many: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The folders of a model and of a data set."""
    model, dataset = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("dataset")
    exports.save_model(model, trained.model, many)
    datasets.write(dataset, many)
    return model, dataset


def _search(artifacts: tuple[Path, Path], **settings: Any) -> Search:
    model, dataset = artifacts
    wanted = MiningConfig(**{"layer": "conv1", **settings})
    return Search(model, digests.content_digest(model / "model.keras"), dataset, wanted)


def _table(trained: fit.Fitted, many: Dataset, best: TopK, layer: str, path: Path) -> bytes:
    settings = MiningConfig(layer=layer)
    found = patches.describe(trained.model, many, settings, best, many.class_names)
    parquet.write_rows(path, "patches", found.rows)
    return path.read_bytes()


def _cut_at(ends: list[int]) -> list[Shard]:
    """Return shards of so many batches each."""
    bounds = [*(end * 1000 for end in ends[:-1]), N_IMAGES]
    return [Shard(a, b) for a, b in zip([0, *bounds[:-1]], bounds, strict=True)]


@pytest.mark.parametrize("layer", ["conv1", "conv2", pytest.param("pool", marks=pytest.mark.slow)])
def test_one_two_and_seven_shards_in_any_order_give_the_same_bytes(
    layer: str, artifacts: tuple[Path, Path], trained: fit.Fitted, many: Dataset, tmp_path: Path
) -> None:
    """Each was kept in a file on the way."""
    search = _search(artifacts, layer=layer)
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
            written.add(_table(trained, many, best, layer, tmp_path / "table.parquet"))
    whole = patches.mine(trained.model, many, MiningConfig(layer=layer), many.class_names)
    parquet.write_rows(tmp_path / "whole.parquet", "patches", whole.rows)
    assert written == {(tmp_path / "whole.parquet").read_bytes()}
    assert any(row["n_tied"] for row in whole.rows)


@pytest.mark.parametrize(
    "options", [{"one_per_image": True}, {"suppression_radius": 2}, {"lowest": True}]
)
def test_the_options_do_not_see_the_cut(options: Any, artifacts: tuple[Path, Path]) -> None:
    """What is kept apart is so within images, and a shard has whole ones."""
    search = _search(artifacts, **options)
    (whole,) = (shards.work(search, shard) for shard in _cut_at([8]))
    merged = shards.merged((shards.work(search, shard) for shard in _cut_at([3, 4, 8])), 12)
    for name in ("filters", "activations", "positions", "n_tied"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))


@given(st.integers(1, 10_000_000), st.integers(1, 1000))
def test_shards_are_few_whole_and_about_alike(n_images: int, n_at_once: int) -> None:
    """They follow each other, begin at a batch, and none is empty or twice as long as another."""
    cut = shards.cut(n_images, n_at_once)
    assert [cut[0].start, *(shard.stop for shard in cut)] == [
        *(shard.start for shard in cut),
        n_images,
    ]
    assert all(shard.start % n_at_once == 0 for shard in cut)
    n_batches = [-(-(shard.stop - shard.start) // n_at_once) for shard in cut]
    assert len(cut) <= 16
    assert max(n_batches) - min(n_batches) <= 1
    assert len(cut) == 1 or min(n_batches) >= 10
    assert len(cut) == 16 or max(n_batches) < 20, "there is work for more"


def test_a_worker_reports_the_images_of_its_shard(artifacts: tuple[Path, Path]) -> None:
    """After each batch, from 0."""
    said: list[tuple[int, int]] = []
    shard = Shard(5000, N_IMAGES)
    shards.work(_search(artifacts), shard, lambda now: said.append((now.done, now.total)))
    assert said == [(1000, 2300), (2000, 2300), (2300, 2300)]


def test_a_shards_name_tells_it_from_any_other() -> None:
    """By layer and images: nothing is taken from a search that was cut otherwise."""
    cuts = [Shard(0, 7000), Shard(0, 7300), Shard(7000, 7300)]
    names = {shards.name(layer, shard) for layer in ("conv1", "conv2") for shard in cuts}
    assert len(names) == 6
    assert shards.name("conv1", cuts[2]) == "shard-conv1-000000007000-000000007300.npz"


def test_the_model_is_compiled_once_for_many_shards(
    artifacts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker keeps it; another layer takes its place."""
    loaded: list[Path] = []
    load = exports.load_model
    monkeypatch.setattr(exports, "load_model", lambda path: loaded.append(path) or load(path))
    monkeypatch.setattr(shards, "_last", {})
    for layer in ("conv1", "conv1", "conv2"):
        for shard in _cut_at([7, 8]):
            shards.work(_search(artifacts, layer=layer), shard)
    assert len(loaded) == 2


def test_a_model_that_takes_anothers_folder_is_the_one_that_is_searched(
    artifacts: tuple[Path, Path], trained: fit.Fitted, many: Dataset, tmp_path: Path
) -> None:
    """A worker may live longer than an artifact: a training that is done anew replaces it."""
    model = Path(shutil.copytree(artifacts[0], tmp_path / "model"))
    before = shards.work(_search((model, artifacts[1])), Shard(0, 1000))
    other = fit.fit(many, recipes.FAST.model_copy(update={"precision": "float32", "steps": 2}), 1)
    exports.save_model(model, other.model, many)
    after = shards.work(_search((model, artifacts[1])), Shard(0, 1000))
    assert not np.array_equal(before.activations, after.activations)


def test_batches_are_those_of_the_model(trained: fit.Fitted) -> None:
    """Shards begin at multiples of what is computed at once."""
    assert activations.batch_size(trained.model, "conv1") == 1000
