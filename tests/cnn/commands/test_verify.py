"""Verifying a store: everything that is not as it was made is named, and nothing is changed."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn.commands import verify
from cnn.data import idx
from cnn.io.digest_cache import DigestCache
from cnn.progress import Progress
from cnn.runs import index, records
from cnn.runs.records import RunRecord
from cnn.store.keys import Key
from cnn.store.manifests import Headline
from cnn.store.store import Store
from cnn.tables import parquet
from tests import hosts
from tests.cnn.commands import filled_store


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with two runs on one data set."""
    store = Store(tmp_path / "artifacts")
    filled_store.add_run(store, 1)
    filled_store.add_run(store, 2)
    return store


def all_records(store: Store) -> list[RunRecord]:
    return list(records.read_all(store.runs))


def broken(store: Store) -> list[tuple[str, str]]:
    """Return what is broken, with paths below the root."""
    found = verify.verify(store).broken
    return [(str(item.path.relative_to(store.root)), item.what) for item in found]


def test_a_store_as_it_was_made_is_clean(store: Store) -> None:
    """Artifacts, runs, files and bytes are counted; a link to the root is as good as the root."""
    found = verify.verify(store)
    assert found.broken == []
    assert (found.n_artifacts, found.n_runs) == (5, 2)
    n_artifact_files = 1 + 2 * 2 + 2 * 2
    assert found.n_files == n_artifact_files + 2 * (2 + 2)
    assert found.n_bytes == len("dataset 0") + 8 * len("model 1") + 8 * len("report 1")
    link = store.root.with_name("link")
    link.symlink_to(store.root)
    assert verify.verify(Store(link)) == found
    (store.root / "quarantine").touch()
    assert len(verify.verify(Store(link)).broken) == 1


@pytest.mark.parametrize("make", [lambda root: None, lambda root: root.mkdir()])
def test_a_store_without_anything_is_clean(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Nothing is there, nothing is broken, and nothing is created."""
    root = tmp_path / "artifacts"
    make(root)
    assert verify.verify(Store(root)) == verify.Findings()
    assert list(tmp_path.rglob("*")) in ([], [root])


def model_of(store: Store) -> Path:
    return filled_store.artifact_path(store, filled_store.ref_of(all_records(store)[0], "model"))


def run_of(store: Store) -> Path:
    return store.runs / all_records(store)[0].run


def text(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


def edited(name: str, **changes: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | changes))

    return change


ARTIFACT_FAULTS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "edited, same size": (text("model.json", "model 9"), ["model.json was changed"]),
    "cut off": (text("model.json", "mod"), ["model.json has 3 bytes, not 7"]),
    "gone": (lambda f: (f / "model.json").unlink(), ["model.json is missing"]),
    "two at once": (
        lambda f: [(f / "model.json").unlink(), (f / "history.parquet").write_text("x")],
        ["history.parquet has 1 bytes, not 7", "model.json is missing"],
    ),
    "planted": (text("evil.pkl", ""), ["evil.pkl does not belong there"]),
    "planted, hidden": (text(".evil", ""), [".evil does not belong there"]),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), ["manifest.json is missing"]),
    "half a manifest": (text("manifest.json", '{"kind": '), ["manifest.json is"]),
    "an edited manifest": (edited("manifest.json", seconds=1e9), ["manifest.json was changed"]),
    "another's manifest": (edited("manifest.json", key="0" * 64), ["belongs to another artifact"]),
}


@pytest.mark.parametrize("fault", ARTIFACT_FAULTS)
def test_a_broken_artifact_is_named_with_all_that_is_wrong(store: Store, fault: str) -> None:
    """One line for each broken file; what the store remembers of its digests is not asked."""
    folder = model_of(store)
    damage, wanted = ARTIFACT_FAULTS[fault]
    damage(folder)
    found = broken(store)
    assert [path for path, _ in found] == [str(folder.relative_to(store.root))] * len(wanted)
    for (_, what), words in zip(found, wanted, strict=True):
        assert words in what


def test_what_is_remembered_of_digests_is_not_believed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verifying hashes bytes, where a run may trust size and times."""
    path = model_of(store) / "model.json"
    path.write_text("model 9")
    monkeypatch.setattr(DigestCache, "digest", lambda *_: pytest.fail("the memory was asked"))
    assert len(broken(store)) == 1


LAYOUT_FAULTS: dict[str, tuple[str, str]] = {
    "store/model/notes.txt": ("", "is not named by a key"),
    f"store/model/{'a' * 64}": ("", "is a file; a folder belongs there"),
    "store/pickles": ("", "is no kind of artifact"),
    "store/patches": ("", "is a file; a folder belongs there"),
    "quarantine": ("", "is a file; a folder belongs there"),
    "runs/notes.txt": ("", "is a file; a folder belongs there"),
    f"checkpoints/{'b' * 64}": ("", "is a file; a folder belongs there"),
}


@pytest.mark.parametrize("place", LAYOUT_FAULTS)
def test_a_file_where_a_folder_belongs_is_named(store: Store, place: str) -> None:
    """Whatever lies in the store's own folders and is no artifact, run or training."""
    content, wanted = LAYOUT_FAULTS[place]
    path = store.root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    assert broken(store) == [(place, wanted)]


@pytest.mark.parametrize("kept", [True, False])
def test_links_are_named_and_not_followed(store: Store, tmp_path: Path, kept: bool) -> None:
    """An artifact moved elsewhere, with a link left behind, is not in the store."""
    folder = model_of(store)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / ("elsewhere" if kept else "nowhere"))
    place = str(folder.relative_to(store.root))
    assert broken(store) == [(place, "is a link, which is not followed; a folder belongs there")]


def test_what_is_not_of_the_store_is_not_its_fault(store: Store) -> None:
    """A note in the root and files that are being written are no damage."""
    (store.root / "README").write_text("ours")
    (store.root / "store" / ".model-1.part").mkdir()
    (store.root / "runs" / ".run.part").mkdir()
    assert broken(store) == []


RUN_FAULTS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "an edited table": (
        text("tables/history.parquet", "model 9"),
        "/tables/history.parquet",
        "was changed",
    ),
    "an edited figure": (text("figures/history.png", "x"), "/figures/history.png", "was changed"),
    "a missing copy": (
        lambda f: (f / "model/model.json").unlink(),
        "",
        "model/model.json is missing",
    ),
    "a link": (
        lambda f: [
            (f / "model/model.json").unlink(),
            (f / "model/model.json").symlink_to(f / "run.json"),
        ],
        "",
        "model/model.json is missing",
    ),
    "no record": (lambda f: (f / "run.json").unlink(), "", "run.json is missing or damaged"),
    "half a record": (text("run.json", '{"run":'), "", "run.json is missing or damaged"),
    "no report": (lambda f: (f / "report.html").unlink(), "", "report.html is missing"),
}


@pytest.mark.parametrize("fault", RUN_FAULTS)
def test_a_broken_run_folder_is_named(store: Store, fault: str) -> None:
    """The copies that a consumer reads are compared with the artifacts that they came from."""
    folder = run_of(store)
    damage, place, wanted = RUN_FAULTS[fault]
    damage(folder)
    found = [item for item in broken(store) if item[0] != "runs/index.parquet"]
    assert [path for path, _ in found] == [f"runs/{folder.name}{place}"]
    assert wanted in found[0][1]


def test_copies_outlive_their_artifacts(store: Store) -> None:
    """A run whose artifacts were freed is whole: there is nothing to compare it with."""
    folder = model_of(store)
    folder.rename(store.root.with_name("taken away"))
    (run_of(store) / "model/model.json").write_text("model 9")
    assert broken(store) == []


def test_copies_of_an_earlier_result_are_no_damage(store: Store) -> None:
    """An artifact that was made anew with other content says nothing of older copies."""
    ref = filled_store.ref_of(all_records(store)[0], "model")
    manifest = store.manifest(ref)

    def produce(folder: Path) -> Headline:
        (folder / "model.json").write_text("other")
        return {}

    key = Key("model", manifest.components)
    assert store.publish(key, manifest.reads, produce, replace=True).ref != ref
    assert broken(store) == []


def without_last(path: Path) -> None:
    rows = parquet.read(path).drop_columns("schema_version").to_pylist()
    parquet.write_rows(path, "runs", rows[:-1])


def with_one_twice(path: Path) -> None:
    rows = parquet.read(path).drop_columns("schema_version").to_pylist()
    parquet.write_rows(path, "runs", [*rows, rows[0]])


def other_accuracy(path: Path) -> None:
    rows = parquet.read(path).drop_columns("schema_version").to_pylist()
    parquet.write_rows(path, "runs", [rows[0], rows[1] | {"test_accuracy": 0.99}])


INDEX_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "gone": (Path.unlink, "is missing"),
    "cut off": (lambda path: os.truncate(path, 100), "not a complete parquet file"),
    "a run short": (without_last, "has 1 runs and there are 2; "),
    "a run twice": (with_one_twice, "has a run twice"),
    "another accuracy": (other_accuracy, "differs from the run.json of "),
}


@pytest.mark.parametrize("fault", INDEX_FAULTS)
def test_an_index_that_does_not_agree_is_named(store: Store, fault: str) -> None:
    """It says what the run.json files say, or it is broken."""
    damage, wanted = INDEX_FAULTS[fault]
    damage(store.runs / "index.parquet")
    ((path, what),) = broken(store)
    assert path == "runs/index.parquet"
    assert wanted in what


def test_a_run_that_is_just_finishing_is_no_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is there before its row: a second look finds both."""
    without_last(store.runs / "index.parquet")
    monkeypatch.setattr(verify.time, "sleep", lambda _: index.rebuild(store.runs))
    assert broken(store) == []


def test_promoted_copies_are_compared(store: Store) -> None:
    """With the artifacts of the run that was promoted last, as the promoted run.json names them."""
    record = all_records(store)[0]
    track = filled_store.promote(store, record)
    assert broken(store) == []
    (track / "model/model.json").write_text("model 9")
    (track / "figures/history.png").unlink()
    assert broken(store) == [
        ("promoted/main/model/model.json", f"is not what {record.run} made"),
        ("promoted/main/figures", "history.png is missing"),
    ]


def test_a_history_that_cannot_be_read_is_broken(store: Store) -> None:
    """So is a promoted folder without the record of its run."""
    track = filled_store.promote(store, all_records(store)[0])
    (track / "run.json").unlink()
    ((path, what),) = broken(store)
    assert (path, "run.json: cannot be read" in what) == ("promoted/main", True)
    (track / "promoted.json").write_text("{}")
    ((path, what),) = broken(store)
    assert (path, "promoted.json cannot be read" in what) == ("promoted/main", True)


DOWNLOAD = "t10k-labels-idx1-ubyte.gz"
DOWNLOAD_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "other labels": (
        lambda path: idx.write(path, np.array([1, 2, 4], np.uint8), compress=True),
        "has wrong content: SHA-256 of it unpacked is ",
    ),
    "cut off": (lambda path: os.truncate(path, path.stat().st_size - 9), "cut off"),
    "a page": (lambda path: path.write_bytes(gzip.compress(b"<!doctype html>")), ""),
}


@pytest.mark.parametrize("fault", DOWNLOAD_FAULTS)
def test_downloads_are_unpacked_and_compared(
    store: Store, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """With the digests that are known; what was set aside is not looked at."""
    path = store.downloads / "mnist" / DOWNLOAD
    path.parent.mkdir(parents=True)
    idx.write(path, np.array([1, 2, 3], np.uint8), compress=True)
    hosts.patch_set(monkeypatch, "mnist", sha256={"test-labels": idx.digest(path)})
    path.with_name(f"{DOWNLOAD}.bad").write_text("set aside")
    assert broken(store) == []
    damage, wanted = DOWNLOAD_FAULTS[fault]
    damage(path)
    ((place, what),) = broken(store)
    assert place == f"downloads/mnist/{DOWNLOAD}"
    assert wanted in what


def test_nothing_on_disk_is_changed(store: Store) -> None:
    """Neither a broken artifact nor an index that is wrong is touched."""
    (model_of(store) / "model.json").write_text("model 9")
    (store.runs / "index.parquet").unlink()
    before = filled_store.contents(store.root.parent)
    assert len(broken(store)) == 2
    assert filled_store.contents(store.root.parent) == before


def test_progress_goes_from_one_to_all(store: Store) -> None:
    """Each artifact and each run is one step."""
    seen: list[Progress] = []
    verify.verify(store, seen.append)
    assert [(now.done, now.total) for now in seen] == [(n, 7) for n in range(1, 8)]
