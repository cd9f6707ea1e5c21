"""Verification names everything that is broken in a store, and changes nothing."""

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
from cnn.store.keys import Key
from cnn.store.manifests import Headline
from cnn.store.refs import Ref
from cnn.store.store import Store
from cnn.tables import parquet
from tests import hosts
from tests.cnn.commands import filled_store

Damage = Callable[[Path], Any]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def store(store: Store) -> Store:
    """A store with two runs on one data set."""
    filled_store.add_run(store, 1)
    filled_store.add_run(store, 2)
    return store


def broken(store: Store) -> list[tuple[str, str]]:
    """Return what is broken, with paths below the root."""
    found = verify.verify(store).broken
    return [(str(item.path.relative_to(store.root)), item.what) for item in found]


def test_an_intact_store_is_counted(store: Store) -> None:
    """Artifacts, runs, files and bytes; a link to the root gives the same."""
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


@pytest.mark.parametrize("exists", [False, True])
def test_an_empty_store_is_intact(tmp_path: Path, exists: bool) -> None:
    """Nothing is created."""
    root = tmp_path / "artifacts"
    if exists:
        root.mkdir()
    assert verify.verify(Store(root)) == verify.Findings()
    assert list(tmp_path.rglob("*")) == [root] * exists


def model_ref(store: Store) -> Ref:
    return filled_store.ref_of(next(records.read_all(store.runs)), "model")


def model_of(store: Store) -> Path:
    return filled_store.artifact_path(store, model_ref(store))


def run_of(store: Store) -> Path:
    return store.runs / next(records.read_all(store.runs)).run


def index_of(store: Store) -> Path:
    return store.runs / "index.parquet"


def text(name: str, content: str) -> Damage:
    return lambda folder: (folder / name).write_text(content)


def gone(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def edited(name: str, **changes: Any) -> Damage:
    return lambda f: (f / name).write_text(json.dumps(json.loads((f / name).read_text()) | changes))


def link_to_record(folder: Path) -> None:
    (folder / "model/model.json").unlink()
    (folder / "model/model.json").symlink_to(folder / "run.json")


def rows(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Damage:
    """Return what rewrites the index with other rows."""

    def rewrite(path: Path) -> None:
        old = parquet.read(path).drop_columns("schema_version").to_pylist()
        parquet.write_rows(path, "runs", change(old))

    return rewrite


without_last = rows(lambda old: old[:-1])
# Of a place in the store: what damages it, and the findings, each as path and problem.
FAULTS: dict[Callable[[Store], Path], dict[str, tuple[Any, ...]]] = {
    model_of: {
        "edited, same size": (text("model.json", "model 9"), " model.json was changed"),
        "cut off": (text("model.json", "mod"), " model.json has 3 bytes, not 7"),
        "two at once": (
            lambda f: [gone("model.json")(f), text("history.parquet", "x")(f)],
            " history.parquet has 1 bytes, not 7",
            " model.json is missing",
        ),
        "planted": (text("evil.pkl", ""), " evil.pkl is not listed in manifest.json"),
        "planted, hidden": (text(".evil", ""), " .evil is not listed in manifest.json"),
        "no manifest": (gone("manifest.json"), " manifest.json is missing"),
        "half a manifest": (text("manifest.json", '{"kind": '), " manifest.json is"),
        "edited manifest": (edited("manifest.json", seconds=1e9), " manifest.json was changed"),
        "another's manifest": (edited("manifest.json", key="0" * 64), " manifest.json belongs to"),
    },
    run_of: {
        "edited table": (text("tables/history.parquet", "x"), "/tables/history.parquet was chan"),
        "edited figure": (text("figures/history.png", "x"), "/figures/history.png was changed"),
        "missing copy": (gone("model/model.json"), " model/model.json is missing"),
        "link": (link_to_record, " model/model.json is missing"),
        "no report": (gone("report.html"), " report.html is missing"),
    },
    index_of: {
        "gone": (Path.unlink, " is missing"),
        "cut off": (lambda path: os.truncate(path, 100), " not a complete parquet file"),
        "a run short": (without_last, " lists 1 runs, the folder has 2; 2"),
        "a run twice": (rows(lambda old: [*old, old[0]]), " lists a run twice"),
        "another accuracy": (
            rows(lambda old: [old[0], old[1] | {"test_accuracy": 0.99}]),
            " differs from the run.json of ",
        ),
    },
}


@pytest.mark.parametrize(
    ("locate", "fault"), [(locate, fault) for locate in FAULTS for fault in FAULTS[locate]]
)
def test_everything_broken_is_named(
    store: Store, locate: Callable[[Store], Path], fault: str
) -> None:
    """One line per problem in an artifact, in the copies of a run's folder, or in the index."""
    damage, *expected = FAULTS[locate][fault]
    damage(path := locate(store))
    found = [f"{place} {problem}" for place, problem in broken(store)]
    for line, problem in zip(found, expected, strict=True):
        assert line.startswith(f"{path.relative_to(store.root)}{problem}")


@pytest.mark.parametrize("damage", [gone("run.json"), text("run.json", '{"run":')])
def test_a_run_without_a_readable_record_is_named(store: Store, damage: Damage) -> None:
    """And the index still lists it."""
    folder = run_of(store)
    damage(folder)
    assert broken(store) == [
        (f"runs/{folder.name}", "run.json is missing or damaged"),
        (
            "runs/index.parquet",
            f"lists 2 runs, the folder has 1; {folder.name} is only in the index",
        ),
    ]


def test_files_are_hashed_without_the_digest_cache(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may trust size and times, verification does not."""
    (model_of(store) / "model.json").write_text("model 9")
    monkeypatch.setattr(DigestCache, "digest", lambda *_: pytest.fail("the cache was used"))
    assert len(broken(store)) == 1


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("store/model/notes.txt", "is not named by a key"),
        (f"store/model/{'a' * 64}", "is a file; expected a folder"),
        ("store/pickles", "is not a kind of artifact"),
        ("store/patches", "is a file; expected a folder"),
        ("quarantine", "is a file; expected a folder"),
        ("runs/notes.txt", "is a file; expected a folder"),
        (f"checkpoints/{'b' * 64}", "is a file; expected a folder"),
    ],
)
def test_a_foreign_file_is_named(store: Store, place: str, problem: str) -> None:
    """Anything in the store's own folders that is not an artifact, run or training."""
    path = store.root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert broken(store) == [(place, problem)]


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_links_are_named_and_not_followed(store: Store, tmp_path: Path, target: str) -> None:
    """An artifact that was moved away and replaced by a link is not in the store."""
    folder = model_of(store)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / target)
    place = str(folder.relative_to(store.root))
    assert broken(store) == [(place, "is a link, which is not followed; expected a folder")]


def remake_model(store: Store) -> None:
    """Publish the model again with other content."""
    ref = model_ref(store)
    manifest = store.manifest(ref)

    def produce(folder: Path) -> Headline:
        (folder / "model.json").write_text("other")
        return {}

    key = Key("model", manifest.components)
    assert store.publish(key, manifest.reads, produce, replace=True).ref != ref


@pytest.mark.parametrize("change", [lambda store: model_of(store).rename("gone"), remake_model])
def test_copies_of_an_artifact_that_is_gone_or_was_made_again_are_not_compared(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Store], Any]
) -> None:
    """There is nothing left to compare them with."""
    monkeypatch.chdir(tmp_path)
    change(store)
    (run_of(store) / "model/model.json").write_text("model 9")
    assert broken(store) == []


def test_notes_in_the_root_and_temporary_files_are_not_damage(store: Store) -> None:
    """Files that a process is writing have hidden names."""
    (store.root / "README").write_text("ours")
    (store.root / "store" / ".model-1.part").mkdir()
    (store.root / "runs" / ".run.part").mkdir()
    assert broken(store) == []


def test_a_run_that_is_just_finishing_is_not_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder appears before its row, which the second comparison finds."""
    without_last(index_of(store))
    monkeypatch.setattr(verify.time, "sleep", lambda _: index.rebuild(store.runs))
    assert broken(store) == []


def test_promoted_files_are_compared_with_the_artifacts(store: Store) -> None:
    """Of the run in the promoted run.json; an unreadable record or history is named."""
    run = run_of(store).name
    track = filled_store.promote(store, "gone", run)
    assert broken(store) == []
    (track / "model/model.json").write_text("model 9")
    (track / "figures/history.png").unlink()
    assert broken(store) == [
        ("promoted/main/model/model.json", f"differs from the artifact of {run}"),
        ("promoted/main/figures", "history.png is missing"),
    ]
    for damage, problem in (
        (gone("run.json"), "run.json: cannot be read"),
        (text("promoted.json", "{}"), "promoted.json cannot be read"),
    ):
        damage(track)
        ((path, what),) = broken(store)
        assert (path, problem in what) == ("promoted/main", True)


DOWNLOAD = "t10k-labels-idx1-ubyte.gz"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            lambda path: idx.write(path, np.array([1, 2, 4], np.uint8), compress=True),
            "has wrong content: its unpacked SHA-256 is ",
        ),
        (lambda path: os.truncate(path, path.stat().st_size - 9), "cut off"),
        (lambda path: path.write_bytes(gzip.compress(b"<!doctype html>")), ""),
    ],
    ids=["other labels", "cut off", "an HTML page"],
)
def test_downloads_are_unpacked_and_compared(
    store: Store, monkeypatch: pytest.MonkeyPatch, damage: Damage, problem: str
) -> None:
    """With the known digests; a file that was set aside is ignored."""
    path = store.downloads / "mnist" / DOWNLOAD
    path.parent.mkdir(parents=True)
    idx.write(path, np.array([1, 2, 3], np.uint8), compress=True)
    hosts.patch_set(monkeypatch, "mnist", sha256={"test-labels": idx.digest(path)})
    path.with_name(f"{DOWNLOAD}.bad").write_text("set aside")
    assert broken(store) == []
    damage(path)
    ((place, what),) = broken(store)
    assert place == f"downloads/mnist/{DOWNLOAD}"
    assert problem in what


def test_nothing_on_disk_is_changed_and_progress_counts_artifacts_and_runs(store: Store) -> None:
    """Not even a broken artifact or a missing index."""
    (model_of(store) / "model.json").write_text("model 9")
    index_of(store).unlink()
    before = filled_store.contents(store.root.parent)
    seen: list[Progress] = []
    assert len(verify.verify(store, seen.append).broken) == 2
    assert filled_store.contents(store.root.parent) == before
    assert [(now.done, now.total) for now in seen] == [(n, 7) for n in range(1, 8)]
