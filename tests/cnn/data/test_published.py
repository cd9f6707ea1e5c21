"""Published sets: fetched, verified by pinned digests or by shape, and identified for a key."""

import gzip
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnn.config.run import DataConfig, RunConfig
from cnn.data import download, idx, idx_folder, published, sources
from cnn.data.dataset import Dataset
from cnn.errors import UnreachableError
from cnn.io import digest_cache
from cnn.pipeline import planning
from cnn.pipeline.steps import LOAD_DATASET
from cnn.store.store import Store
from tests import hosts
from tests.hosts import Server, serving, small_set, written

CONFIG = DataConfig(source="fashion-mnist", validation_fraction=0.1)  # without pinned digests
MNIST = DataConfig(source="mnist")
SMALL = small_set()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The only host of every set, each made small."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(published, "SHAPES", {role: array.shape for role, array in SMALL.items()})
    with serving(written(tmp_path / "host", SMALL)) as server:
        for name in published.SETS:
            hosts.patch_set(monkeypatch, name, addresses=tuple(server.at("good")))
        yield server


@pytest.fixture
def pinned(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digests of the small files are those of MNIST."""
    hosts.patch_set(monkeypatch, "mnist", sha256=hosts.digests(tmp_path / "host"))


def load(config: DataConfig, tmp_path: Path) -> Dataset:
    """Return the data set as the task does: fetch, identify, load."""
    LOAD_DATASET.fetch(config, tmp_path / "downloads")
    return sources.load(sources.identify(config, tmp_path / "downloads"), config)


def assert_fetched(name: str, tmp_path: Path, class_names: tuple[str, ...]) -> None:
    """Assert that a set is loaded with the arrays of the host and these names."""
    dataset = load(CONFIG.model_copy(update={"source": name}), tmp_path)
    assert (dataset.name, dataset.class_names) == (name, class_names)
    assert len(set(dataset.class_names)) == 10
    test = dataset.splits["test"]
    np.testing.assert_array_equal(test.images[..., 0], SMALL["test-images"])
    np.testing.assert_array_equal(test.labels, SMALL["test-labels"])


@pytest.mark.parametrize("name", ["fashion-mnist", "kmnist"])
def test_a_set_is_fetched_and_its_classes_have_names(
    tmp_path: Path, server: Server, name: str
) -> None:
    """The arrays are those of the host, the names those of the set's authors."""
    assert_fetched(name, tmp_path, published.SETS[name].class_names)
    assert server.asked == {"good": 4}


@pytest.mark.usefixtures("pinned")
def test_mnist_is_fetched_and_its_classes_are_its_labels(tmp_path: Path, server: Server) -> None:
    """Its four files have the pinned digests."""
    assert_fetched("mnist", tmp_path, tuple("0123456789"))
    assert server.asked == {"good": 4}


@pytest.mark.usefixtures("pinned")
@pytest.mark.parametrize("role", idx_folder.ROLES)
def test_one_changed_element_of_a_pinned_set_is_refused(
    tmp_path: Path, server: Server, role: str
) -> None:
    """Found in the downloads or fetched, whichever of the four files it is in."""
    written(tmp_path / "downloads" / "mnist", SMALL | {role: SMALL[role] ^ 1})
    path = tmp_path / "downloads" / "mnist" / published.FILE_NAMES[role]
    server.bodies[path.name] = path.read_bytes()
    with pytest.raises(UnreachableError, match=rf"/good/{path.name}: wrong checksum") as caught:
        load(MNIST, tmp_path)
    digests = f"{idx.digest(Path(f'{path}.bad'))}, expected {published.SETS['mnist'].sha256[role]}"
    assert str(caught.value).count(digests) == 2
    assert not path.exists()


@pytest.mark.parametrize(
    "places", [("dead", "hang", "silent"), ("overloaded", "gone"), ("hang", "drip", "hang")]
)
def test_if_every_host_is_dead_or_hangs_the_run_ends_in_time(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, places: tuple[str, ...]
) -> None:
    """The hosts share the time; one message lists the answer of each of them."""
    server.piece, server.pause = 1, 0.03
    monkeypatch.setattr(published, "FETCH_SECONDS", 1.2)
    monkeypatch.setattr(download, "READ_SECONDS", 0.3)
    monkeypatch.setattr(download, "FIRST_PAUSE_SECONDS", 0.01)
    hosts.patch_set(monkeypatch, "mnist", addresses=tuple(server.at(*places)))
    started = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        load(MNIST, tmp_path)
    assert time.monotonic() - started < 1.2 + len(places) * download.GRACE_SECONDS
    first, *answers, remedy = str(caught.value).splitlines()
    assert first.endswith(f"could not be fetched from any of {len(places)} addresses:")
    for place, answer in zip(places, answers, strict=True):
        assert f"/{place}/train-images-idx3-ubyte.gz: " in answer
    assert "--data.source folder --data.path FOLDER" in remedy
    assert list((tmp_path / "downloads" / "mnist").iterdir()) == []


def test_the_time_limits_leave_room_for_the_rest_of_the_run() -> None:
    """120 s is the promise; each host may delay the run for a second beyond its share."""
    most_hosts = max(len(known.addresses) for known in published.SETS.values())
    assert published.FETCH_SECONDS + most_hosts * download.GRACE_SECONDS < 120 - 15


def test_fetched_files_decide_the_key(tmp_path: Path, server: Server) -> None:
    """The digests are those of the unpacked files; a host with other pixels gives another key."""
    LOAD_DATASET.fetch(CONFIG, tmp_path / "a")
    source = sources.identify(CONFIG, tmp_path / "a")
    assert source.digests == hosts.digests(tmp_path / "host")
    others = SMALL | {"test-images": SMALL["test-images"] ^ 1}
    server.bodies = written(tmp_path / "other", others)
    LOAD_DATASET.fetch(CONFIG, tmp_path / "b")
    assert sources.identify(CONFIG, tmp_path / "b").digests != source.digests


def test_a_plan_says_what_is_not_fetched_yet(tmp_path: Path, server: Server) -> None:
    """A plan asks no host; once the files are fetched, it gives the usual reasons."""
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
    """A second plan reads none of them; a file that changed is read and verified again."""
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


BAD = [
    ("train-images", SMALL["train-images"][:-1], r"uint8 of shape \(59, 28, 28\); the train-ima"),
    ("test-images", SMALL["test-images"][:, :27], r"uint8 of shape \(20, 27, 28\)"),
    ("test-images", SMALL["test-images"][..., None], r"uint8 of shape \(20, 28, 28, 1\)"),
    ("test-images", SMALL["test-images"].astype(np.int16), r"int16 of shape .* are uint8 of"),
    ("train-labels", SMALL["test-labels"], r"uint8 of shape \(20,\); .* of shape \(60,\)"),
    ("test-labels", SMALL["test-labels"] + 1, "found the label 10; fashion-mnist has 0 to 9"),
]


@pytest.mark.parametrize(("role", "array", "message"), BAD)
def test_files_without_the_shape_of_the_set_are_refused(
    tmp_path: Path, server: Server, role: str, array: NDArray[Any], message: str
) -> None:
    """An undamaged file of something else is refused; the error says what it is."""
    name = published.FILE_NAMES[role]
    idx.write(tmp_path / name, array, compress=True)
    server.bodies[name] = (tmp_path / name).read_bytes()
    with pytest.raises(UnreachableError, match=message):
        load(CONFIG, tmp_path)
    assert not (tmp_path / "downloads" / "fashion-mnist" / name).exists()


@pytest.mark.parametrize("place", ["short", "damaged", "page", "empty"])
def test_without_pinned_digests_a_bad_body_is_refused_too(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """gzip must be whole, its checksum right, and the IDX file inside complete."""
    hosts.patch_set(monkeypatch, "fashion-mnist", addresses=tuple(server.at(place, "good")))
    load(CONFIG, tmp_path)
    assert server.asked == {place: 4, "good": 4}


@pytest.mark.usefixtures("pinned")
def test_mnist_under_another_name_is_refused(tmp_path: Path) -> None:
    """The sets share file names and shapes: a host may confuse them."""
    with pytest.raises(UnreachableError, match="this is a file of mnist, not of fashion-mnist"):
        load(CONFIG, tmp_path)


@pytest.mark.parametrize("damage", ["gone", "short", "changed"])
def test_files_that_are_damaged_later_are_fetched_again(
    tmp_path: Path, server: Server, damage: str
) -> None:
    """They give no key, and the next run replaces them; good ones are not fetched twice."""
    load(CONFIG, tmp_path)
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
    load(CONFIG, tmp_path)
    assert published.is_fetched("fashion-mnist", tmp_path / "downloads")
    assert server.asked == {"good": 5}


def test_each_set_has_two_hosts_that_tls_vouches_for() -> None:
    """The names of the sets are choices of data.source."""
    for name, known in published.SETS.items():
        assert DataConfig(source=name)
        assert len({address.split("/")[2] for address in known.addresses}) >= 2
        assert all(address.startswith("https://") for address in known.addresses)
        assert all(address.endswith("/") for address in known.addresses)


@pytest.mark.real_mnist
def test_no_real_file_is_longer_than_its_limit(mnist_dir: Path) -> None:
    """Packed, unpacked, or packed without compression."""
    for role in idx_folder.ROLES:
        (path,) = mnist_dir.glob(published.FILE_NAMES[role])
        unpacked = gzip.decompress(path.read_bytes())
        largest = max(len(unpacked), len(gzip.compress(unpacked, 0)), path.stat().st_size)
        limit = published._wanted("mnist")[path.name].most_bytes
        assert largest < limit < 1.1 * len(unpacked) + 5e3
