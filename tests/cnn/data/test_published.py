"""Published sets: what is accepted as Fashion-MNIST or KMNIST, whose digests nobody pinned."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn.config.run import DataConfig, RunConfig
from cnn.data import idx, idx_folder, published, sources
from cnn.data.dataset import Dataset
from cnn.errors import UnreachableError
from cnn.io import digest_cache
from cnn.pipeline import planning
from cnn.pipeline.steps import LOAD_DATASET
from cnn.store.store import Store
from tests import hosts
from tests.hosts import Server, serving, small_set, written

UNPINNED = ("fashion-mnist", "kmnist")
CONFIG = DataConfig(source="fashion-mnist", validation_fraction=0.1)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A host of both sets, made small; every set is looked for there and nowhere else."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    arrays = small_set()
    monkeypatch.setattr(published, "SHAPES", {role: arrays[role].shape for role in arrays})
    with serving(written(tmp_path / "host", arrays)) as server:
        for name in published.SETS:
            hosts.patch_set(monkeypatch, name, addresses=tuple(server.at("good")))
        yield server


def run(config: DataConfig, downloads: Path) -> Dataset:
    """Return the data set as the task does: fetch, resolve, load."""
    LOAD_DATASET.fetch(config, downloads)
    return sources.load(sources.identify(config, downloads), config)


@pytest.mark.parametrize("name", UNPINNED)
def test_a_set_is_fetched_and_its_classes_have_names(
    tmp_path: Path, server: Server, name: str
) -> None:
    """The arrays are those of the host, the names those of the set's authors."""
    dataset = run(CONFIG.model_copy(update={"source": name}), tmp_path / "downloads")
    assert (dataset.name, dataset.class_names) == (name, published.SETS[name].class_names)
    assert len(set(dataset.class_names)) == 10
    test = dataset.splits["test"]
    np.testing.assert_array_equal(test.images[..., 0], small_set()["test-images"])
    np.testing.assert_array_equal(test.labels, small_set()["test-labels"])
    assert server.asked == {"good": 4}


def test_what_was_fetched_decides_the_key(tmp_path: Path, server: Server) -> None:
    """The digests are those of the unpacked files; a host with other pixels gives another key."""
    LOAD_DATASET.fetch(CONFIG, tmp_path / "a")
    source = sources.identify(CONFIG, tmp_path / "a")
    assert source.digests == {
        role: idx.digest(tmp_path / "host" / name) for role, name in published.FILE_NAMES.items()
    }
    others = {**small_set(), "test-images": small_set()["test-images"] ^ 1}
    server.bodies = written(tmp_path / "other", others)
    LOAD_DATASET.fetch(CONFIG, tmp_path / "b")
    assert sources.identify(CONFIG, tmp_path / "b").digests != source.digests


def test_a_plan_says_what_is_not_fetched_yet(tmp_path: Path, server: Server) -> None:
    """Nothing is asked for a plan; once the files are there, the usual reasons are given."""
    store = Store(tmp_path / "artifacts")
    first, *others = planning.plan(store, RunConfig(data=CONFIG))
    assert (first.state, first.why) == ("run", "fashion-mnist is not fetched yet")
    assert {item.state for item in others} == {"depends"}
    assert not server.asked
    LOAD_DATASET.fetch(CONFIG, store.downloads)
    (first, *_) = planning.plan(store, RunConfig(data=CONFIG))
    assert (first.state, first.why) == ("run", "no dataset in the store yet")


@pytest.mark.usefixtures("server")
def test_only_sets_without_pinned_digests_are_fetched_for_their_key(tmp_path: Path) -> None:
    """MNIST's key is known, so that a cached run needs neither network nor downloads."""
    for source in ("mnist", "digits"):
        LOAD_DATASET.fetch(DataConfig(source=source), tmp_path / "downloads")
    assert not (tmp_path / "downloads").exists()


def test_the_digests_of_unchanged_files_are_remembered(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second plan reads none of them; a file that changed is read and judged again."""
    monkeypatch.setattr(digest_cache, "_SETTLED", 0)
    store = Store(tmp_path / "artifacts")
    (store.root / "store").mkdir(parents=True)
    LOAD_DATASET.fetch(CONFIG, store.downloads)
    digests = sources.identify(CONFIG, store.downloads).digests
    (path, *_) = published.paths("fashion-mnist", store.downloads).values()
    with monkeypatch.context() as patched:
        patched.setattr(idx, "digest", None)
        assert sources.identify(CONFIG, store.downloads).digests == digests
    path.write_bytes(path.read_bytes()[:-1])
    assert sources.identify(CONFIG, store.downloads).digests == {}


SMALL = small_set()
BAD = [
    ("train-images", SMALL["train-images"][:-1], r"uint8 of shape \(59, 28, 28\); the train-ima"),
    ("test-images", SMALL["test-images"][:, :27], r"uint8 of shape \(20, 27, 28\)"),
    ("test-images", SMALL["test-images"][..., None], r"uint8 of shape \(20, 28, 28, 1\)"),
    ("test-images", SMALL["test-images"].astype(np.int16), r"int16 of shape .* are uint8 of"),
    ("train-labels", SMALL["test-labels"], r"uint8 of shape \(20,\); .* of shape \(60,\)"),
    ("test-labels", SMALL["test-labels"] + 1, "a label is 10; fashion-mnist has 0 to 9"),
]


@pytest.mark.parametrize(("role", "array", "wanted"), BAD)
def test_what_has_not_the_shape_of_the_set_is_refused(
    tmp_path: Path, server: Server, role: str, array: np.ndarray[Any, Any], wanted: str
) -> None:
    """A whole and sound file of something else is no data; the error says what it is."""
    name = published.FILE_NAMES[role]
    idx.write(tmp_path / name, array, compress=True)
    server.bodies[name] = (tmp_path / name).read_bytes()
    with pytest.raises(UnreachableError, match=wanted):
        run(CONFIG, tmp_path / "downloads")
    assert not (tmp_path / "downloads" / "fashion-mnist" / name).exists()


@pytest.mark.parametrize("place", ["short", "damaged", "page", "empty"])
def test_without_pinned_digests_a_bad_body_is_refused_too(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """gzip must be whole, its checksum right, and the IDX file within complete."""
    hosts.patch_set(monkeypatch, "fashion-mnist", addresses=tuple(server.at(place, "good")))
    run(CONFIG, tmp_path / "downloads")
    assert server.asked == {place: 4, "good": 4}


def test_mnist_under_another_name_is_refused(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sets share file names and shapes: a host may confuse them."""
    known = {role: idx.digest(tmp_path / "host" / published.FILE_NAMES[role]) for role in SMALL}
    hosts.patch_set(monkeypatch, "mnist", sha256=known)
    with pytest.raises(UnreachableError, match="this is a file of mnist, not of fashion-mnist"):
        run(CONFIG, tmp_path / "downloads")


@pytest.mark.parametrize("damage", ["gone", "short", "changed"])
def test_files_that_are_damaged_later_are_fetched_again(
    tmp_path: Path, server: Server, damage: str
) -> None:
    """They give no key, and the next run repairs them; sound ones are not asked for twice."""
    run(CONFIG, tmp_path / "downloads")
    path = tmp_path / "downloads" / "fashion-mnist" / published.FILE_NAMES["train-labels"]
    content = gzip.decompress(path.read_bytes())
    match damage:
        case "gone":
            path.unlink()
        case "short":
            path.write_bytes(content[:-1])
        case "changed":
            path.write_bytes(content[:-1] + b"\x0a")
    assert sources.identify(CONFIG, tmp_path / "downloads").digests == {}
    assert not published.is_fetched("fashion-mnist", tmp_path / "downloads")
    run(CONFIG, tmp_path / "downloads")
    assert published.is_fetched("fashion-mnist", tmp_path / "downloads")
    assert server.asked == {"good": 5}


def test_each_set_has_two_hosts_that_tls_vouches_for() -> None:
    """The sets' names are the choices of data.source that are fetched."""
    for name, known in published.SETS.items():
        assert DataConfig(source=name)
        hosts = {address.split("/")[2] for address in known.addresses}
        assert len(hosts) >= 2
        assert all(address.startswith("https://") for address in known.addresses)
        assert all(address.endswith("/") for address in known.addresses)


@pytest.mark.real_mnist
def test_no_real_file_is_longer_than_its_limit(mnist_dir: Path) -> None:
    """Packed, unpacked, or packed without compression."""
    for role in idx_folder.ROLES:
        (path,) = mnist_dir.glob(published.FILE_NAMES[role])
        unpacked = gzip.decompress(path.read_bytes())
        largest = max(len(unpacked), len(gzip.compress(unpacked, 0)), path.stat().st_size)
        assert (
            largest < published._wanted("mnist")[path.name].most_bytes < 1.1 * len(unpacked) + 5e3
        )
