"""The promoted run of a track, which changes in one step or not at all."""

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
from typing import Any

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
    """Return a run's folder whose files contain its name."""
    folder = root / "runs" / name
    for path in ("model/model.keras", "tables/metrics.parquet", "report.html", "run.json"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(name)
    return folder


def promote(root: Path, name: str, dataset: Path, track: str = TRACK) -> Path:
    folder = run_folder(root, name)
    with registry.locked(root, track):
        return registry.promote(root, track, folder, dataset, Promotion(run=name, model=f"m{name}"))


def only_run(track: Path) -> str:
    """Return the run that all files of a track's folder belong to."""
    (name,) = {
        *(path.read_text() for path in (track / "model/model.keras", track / "report.html")),
        json.loads((track / "promoted.json").read_text())[-1]["run"],
    }
    return name


def temporaries(root: Path) -> list[Path]:
    return list((root / "promoted").glob(".*.part"))


def test_a_track_has_the_files_and_the_history_of_its_promoted_run(
    tmp_path: Path, dataset: Path
) -> None:
    """And the hashes of the images it was trained on; an earlier run can be promoted again."""
    root = tmp_path / "artifacts"
    assert registry.current(root, TRACK) is None
    for name in ("one", "two", "one", "two"):
        track = promote(root, name, dataset)
        assert only_run(track) == name
    assert track == root / "promoted" / TRACK
    assert registry.runs_named(track) == ["one", "two", "one", "two"]
    assert list(registry.tracks(root)) == [track]
    current = registry.current(root, TRACK)
    assert current is not None
    assert (current.run, current.model) == ("two", "mtwo")
    expected = image_hashes.of(datasets.read(dataset).splits["train"].images)
    assert np.array_equal(current.image_hashes("train"), expected)
    arrays = current.folder / "arrays"
    (arrays / "train-image-hashes.npy").rename(arrays / "train-imprints.npy")  # an older store
    assert np.array_equal(current.image_hashes("train"), expected)


def test_tracks_are_independent_and_keep_the_version_before_for_its_readers(
    tmp_path: Path, dataset: Path
) -> None:
    """Even if the name of one track begins with another's."""
    for n in range(4):
        promote(tmp_path, f"a{n}", dataset, "a")
        promote(tmp_path, f"b{n}", dataset, "a.b")
    assert only_run(tmp_path / "promoted/a") == "a3"
    assert only_run(tmp_path / "promoted/a.b") == "b3"
    assert len(registry.runs_named(tmp_path / "promoted/a.b")) == 4
    versions = (tmp_path / "promoted/.versions").iterdir()
    assert {only_run(path) for path in versions} == {"a2", "a3", "b2", "b3"}
    assert not temporaries(tmp_path)


def test_a_plain_folder_in_place_of_the_link_counts(tmp_path: Path, dataset: Path) -> None:
    """A copy of a store may have one; the next promotion replaces it by a link."""
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


@pytest.mark.parametrize("fault", ["copytree", "flush", "rename", "replace", "no model"])
def test_a_promotion_that_fails_changes_nothing(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A run without a model, or a disk that is full at any step; no temporaries are left."""
    track = promote(tmp_path, "one", dataset)
    folder = run_folder(tmp_path, "two")
    expected: Any = (StoreUnwritableError, "the promoted run could not be written")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if fault == "no model":
            (folder / "model/model.keras").unlink()
            expected = (ArtifactError, "has no model")
        else:
            patch.setattr({"copytree": shutil, "flush": atomic}.get(fault, Path), fault, full)
        with pytest.raises(expected[0], match=expected[1]):
            registry.promote(tmp_path, TRACK, folder, dataset, Promotion(run="two"))
    assert only_run(track) == "one"
    assert not temporaries(tmp_path)


def test_promotions_at_once_are_all_in_the_history(tmp_path: Path, dataset: Path) -> None:
    """They wait for each other, and a reader always sees one complete run."""
    track = promote(tmp_path, "first", dataset)
    names = [f"run{n}" for n in range(12)]
    with ThreadPoolExecutor(4) as pool:
        promotions = [pool.submit(promote, tmp_path, name, dataset) for name in names]
        while not all(future.done() for future in promotions):
            current = registry.current(tmp_path, TRACK)
            assert current is not None
            with suppress(FileNotFoundError):  # two promotions later, it is removed
                assert only_run(current.folder) == current.run
    for future in promotions:
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


def test_a_complete_run_is_promoted_whenever_a_process_is_killed(
    tmp_path: Path, dataset: Path
) -> None:
    """And no earlier promotion is lost from the history."""
    root = tmp_path / "artifacts"
    track = promote(root, "first", dataset)
    script = _FOREVER.format(here=str(ROOT), root=str(root), dataset=str(dataset))
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
        assert only_run(track) == named[-1]
        assert len(named) > n_before
        n_before = len(named)
    promote(root, "last", dataset)
    assert only_run(track) == "last"
    assert not temporaries(root)


@pytest.mark.parametrize(
    ("name", "track"),
    [("mnist", "mnist"), ("Fashion MNIST", "fashion-mnist"), ("../..", "data"), ("", "data")],
)
def test_the_name_of_a_data_set_becomes_a_track_name(name: str, track: str) -> None:
    """It never leads to another folder."""
    assert registry.track_name(name) == track


@pytest.mark.parametrize("content", ["", "[1]", '{"run": "x"}', '[{"run": 3}]'])
def test_nothing_is_promoted_over_a_history_that_cannot_be_read(
    tmp_path: Path, dataset: Path, content: str
) -> None:
    """The message names the file."""
    track = promote(tmp_path, "one", dataset)
    (track / "promoted.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"promoted\.json cannot be read"):
        registry.current(tmp_path, TRACK)
    with pytest.raises(ArtifactError, match=r"promoted\.json cannot be read"):
        promote(tmp_path, "two", dataset)
    assert track.readlink().name == "main.000001"
