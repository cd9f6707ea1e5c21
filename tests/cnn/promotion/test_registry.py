"""What is in force on a track, and how it changes: all at once or not at all."""

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from cnn.data import dataset as datasets
from cnn.data import image_hashes
from cnn.data.dataset import Dataset, Split
from cnn.errors import ArtifactError, StoreUnwritableError
from cnn.io import atomic
from cnn.promotion import registry
from cnn.promotion.registry import Promotion
from tests import ROOT

TRACK = "main"


def split(first: int, n: int) -> Split:
    values = np.arange(first, first + n)
    images = np.zeros((n, 4, 4, 1), np.uint8)
    images[:, 0, 0, 0] = values
    return Split(images, values % 2, values)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The folder of a data set of 30 images."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    splits = {"train": split(0, 20), "validation": split(20, 6), "test": split(26, 4)}
    datasets.write(folder, Dataset("tiny", ("even", "odd"), splits, {}))
    return folder


def run_folder(root: Path, name: str) -> Path:
    """Return the folder of a run whose files say its name."""
    folder = root / "runs" / name
    for path in ("model/model.keras", "tables/metrics.parquet", "report.html", "run.json"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(name)
    return folder


def promote(root: Path, name: str, dataset: Path, track: str = TRACK) -> Path:
    folder = run_folder(root, name)
    with registry.locked(root, track):
        return registry.promote(root, track, folder, dataset, Promotion(run=name, model=f"m{name}"))


def whole(track: Path) -> str:
    """Return the run that a track's folder is of; everything in it must be of that run."""
    names = {
        *(path.read_text() for path in (track / "model/model.keras", track / "report.html")),
        json.loads((track / "promoted.json").read_text())[-1]["run"],
    }
    (name,) = names
    return name


def test_a_promoted_run_lies_in_a_stable_place(tmp_path: Path, dataset: Path) -> None:
    """With everything of its folder, the history, and what it was trained on."""
    root = tmp_path / "artifacts"
    assert registry.current(root, TRACK) is None
    track = promote(root, "one", dataset)
    assert track == root / "promoted" / TRACK
    assert whole(track) == "one"
    promote(root, "two", dataset)
    assert whole(track) == "two"
    assert registry.runs_named(track) == ["one", "two"]
    current = registry.current(root, TRACK)
    assert current is not None
    assert (current.run, current.model) == ("two", "mtwo")
    images = datasets.read(dataset).splits["train"].images
    assert np.array_equal(current.image_hashes("train"), image_hashes.of(images))
    arrays = current.folder / "arrays"
    (arrays / "train-image-hashes.npy").rename(arrays / "train-imprints.npy")  # an older store
    assert np.array_equal(current.image_hashes("train"), image_hashes.of(images))
    assert list(registry.tracks(root)) == [track]


def test_going_back_is_a_promotion_like_any_other(tmp_path: Path, dataset: Path) -> None:
    """The history says so."""
    for name in ("one", "two", "one"):
        track = promote(tmp_path, name, dataset)
    assert whole(track) == "one"
    assert registry.runs_named(track) == ["one", "two", "one"]


def test_tracks_know_nothing_of_each_other(tmp_path: Path, dataset: Path) -> None:
    """Though the name of one begins with another's."""
    for n in range(4):
        promote(tmp_path, f"a{n}", dataset, "a")
        promote(tmp_path, f"b{n}", dataset, "a.b")
    assert whole(tmp_path / "promoted/a") == "a3"
    assert whole(tmp_path / "promoted/a.b") == "b3"
    assert len(registry.runs_named(tmp_path / "promoted/a.b")) == 4


def test_the_version_before_stays_for_those_who_read_it(tmp_path: Path, dataset: Path) -> None:
    """And no more than that."""
    for n in range(5):
        promote(tmp_path, f"run{n}", dataset)
    versions = sorted((tmp_path / "promoted/.versions").iterdir())
    assert [whole(path) for path in versions] == ["run3", "run4"]
    assert not list((tmp_path / "promoted").glob(".*.part"))


def test_a_plain_folder_in_a_track_s_place_counts(tmp_path: Path, dataset: Path) -> None:
    """Copies of a store without its links have them; the next promotion puts a link there."""
    track = promote(tmp_path, "one", dataset)
    copy = tmp_path / "copy"
    shutil.copytree(track, copy)
    track.unlink()
    shutil.rmtree(tmp_path / "promoted/.versions")
    copy.rename(track)
    current = registry.current(tmp_path, TRACK)
    assert current is not None
    assert current.run == "one"
    promote(tmp_path, "two", dataset)
    assert track.is_symlink()
    assert registry.runs_named(track) == ["one", "two"]


def test_a_run_without_a_model_is_not_promoted(tmp_path: Path, dataset: Path) -> None:
    """What was in force stays."""
    track = promote(tmp_path, "one", dataset)
    folder = run_folder(tmp_path, "two")
    (folder / "model/model.keras").unlink()
    with pytest.raises(ArtifactError, match="has no model"):
        registry.promote(tmp_path, TRACK, folder, dataset, Promotion(run="two"))
    assert whole(track) == "one"


@pytest.mark.parametrize("call", ["copytree", "flush", "rename", "replace"])
def test_a_full_disk_leaves_what_was_in_force(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Whichever step it stops; nothing half-written stays."""
    track = promote(tmp_path, "one", dataset)
    folder = run_folder(tmp_path, "two")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        place = {"copytree": shutil, "flush": atomic}.get(call, Path)
        patch.setattr(place, call, full)
        with pytest.raises(StoreUnwritableError, match="what is promoted could not be written"):
            registry.promote(tmp_path, TRACK, folder, dataset, Promotion(run="two"))
    assert whole(track) == "one"
    assert not list((tmp_path / "promoted").glob(".*.part"))


def test_two_at_once_are_both_in_the_history(tmp_path: Path, dataset: Path) -> None:
    """One after the other, and readers always see one whole run."""
    track = promote(tmp_path, "first", dataset)
    names = [f"run{n}" for n in range(12)]
    with ThreadPoolExecutor(4) as pool:
        made = [pool.submit(promote, tmp_path, name, dataset) for name in names]
        while not all(future.done() for future in made):
            current = registry.current(tmp_path, TRACK)
            assert current is not None
            with suppress(FileNotFoundError):  # two promotions later, it is removed
                assert whole(current.folder) == current.run
    for future in made:
        future.result()
    assert sorted(registry.runs_named(track)[1:]) == sorted(names)


_FOREVER = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from tests.cnn.promotion.test_registry import promote
print("ready", flush=True)
for n in range(100000):
    promote(Path({root!r}), f"run{{n}}", Path({dataset!r}))
"""


def test_killed_at_any_moment_a_whole_run_is_in_force(tmp_path: Path, dataset: Path) -> None:
    """And the history has each run that was in force, however often it happens."""
    root, here = tmp_path / "artifacts", str(ROOT)
    track = promote(root, "first", dataset)
    script = _FOREVER.format(here=here, root=str(root), dataset=str(dataset))
    rng = np.random.default_rng(0)
    n_before = 1
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        while len(registry.runs_named(track)) == n_before:
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.3)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        named = registry.runs_named(track)
        assert whole(track) == named[-1]
        assert len(named) > n_before
        n_before = len(named)
    promote(root, "last", dataset)
    assert whole(track) == "last"
    assert not list((root / "promoted").glob(".*.part"))


@pytest.mark.parametrize(
    ("name", "track"),
    [("mnist", "mnist"), ("Fashion MNIST", "fashion-mnist"), ("../..", "data"), ("", "data")],
)
def test_a_data_set_s_name_becomes_a_track(name: str, track: str) -> None:
    """Which never is a path."""
    assert registry.track_name(name) == track


@pytest.mark.parametrize("content", ["", "[1]", '{"run": "x"}', '[{"run": 3}]'])
def test_a_history_that_cannot_be_read_is_named(
    tmp_path: Path, dataset: Path, content: str
) -> None:
    """Nothing is promoted over it."""
    track = promote(tmp_path, "one", dataset)
    (track / "promoted.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"promoted\.json cannot be read"):
        registry.current(tmp_path, TRACK)
    with pytest.raises(ArtifactError, match=r"promoted\.json cannot be read"):
        promote(tmp_path, "two", dataset)
    assert track.readlink().name == "main.000001"
