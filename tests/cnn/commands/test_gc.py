"""Garbage collection: what is kept, what is freed, and what happens beside other processes."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cnn.commands import gc, verify
from cnn.commands.gc import Survey
from cnn.errors import ArtifactError, ConfigError
from cnn.io import atomic
from cnn.runs import folders, index, records, searches
from cnn.store import in_use, layout
from cnn.store.keys import Key
from cnn.store.refs import Ref
from cnn.store.store import Store
from cnn.tables import parquet
from tests.cnn.commands import filled_store


def add_runs(store: Store, n: int, **changes: Any) -> list[str]:
    """Add runs with the seeds 1 to n on one data set and return their names."""
    return [filled_store.add_run(store, seed, **changes).run for seed in range(1, n + 1)]


def freed(found: Survey) -> dict[str, str]:
    """Return what is freed, by the last two parts of its path, and why."""
    return {"/".join(item.path.parts[-2:]): item.why for item in found.freed}


def seeds(store: Store) -> list[int]:
    """Return the seeds of the runs that are left."""
    return [record.seed for record in records.read_all(store.runs)]


def n_artifacts(store: Store) -> int:
    return sum(1 for _ in (store.root / "store").glob("[!.]*/*"))


def written(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_newest_runs_are_kept_with_everything_they_were_made_from(store: Store) -> None:
    """Older runs are freed with the artifacts that only they use, and the index is rebuilt."""
    for seed in range(1, 5):
        filled_store.add_run(store, seed, data_seed=seed % 2)
    found = gc.collect(store, 2)
    assert (seeds(store), n_artifacts(store)) == ([3, 4], 2 + 2 * 2)
    assert [item.what for item in found.freed].count("run") == 2
    assert [item.what for item in found.freed].count("model") == 2
    assert set(freed(found).values()) == {"completed; not among the last", "no kept run needs it"}
    assert filled_store.is_intact(store)
    rows = parquet.read(store.runs / "index.parquet").to_pylist()
    assert [row["seed"] for row in rows] == [3, 4]
    for record in records.read_all(store.runs):
        for step in record.steps:
            assert step.ref
            store.open(step.ref)


def test_a_survey_changes_nothing_and_is_what_a_collection_frees(store: Store) -> None:
    """Each thing with its size in bytes."""
    add_runs(store, 3)
    before = filled_store.contents(store.root)
    found = gc.survey(store, 1)
    assert filled_store.contents(store.root) == before
    for item in found.freed:
        files = [path for path in (item.path, *item.path.rglob("*")) if path.is_file()]
        assert item.n_bytes == sum(path.stat().st_size for path in files) > 0
    assert gc.collect(store, 1) == found
    assert not any(item.path.exists() for item in found.freed)
    assert gc.survey(store, 1).freed == ()


def test_a_store_that_does_not_exist_is_not_created(store: Store) -> None:
    """And nothing is freed."""
    for call in (gc.survey, gc.collect):
        assert call(store, 10) == Survey((), (), ())
    assert not store.root.exists()


def test_a_pinned_run_is_kept_until_it_is_unpinned(store: Store) -> None:
    """Unpinning twice is not an error; pinning an unknown run is."""
    first = add_runs(store, 3)[0]
    assert folders.pin(store.runs, first) == store.runs / first
    assert folders.is_pinned(store.runs / first)
    found = gc.collect(store, 1)
    assert (seeds(store), n_artifacts(store)) == ([1, 3], 1 + 2 * 2)
    assert {item.path.name: item.why for item in found.kept}[first] == "pinned"
    folders.unpin(store.runs, first)
    folders.unpin(store.runs, first)
    gc.collect(store, 1)
    assert seeds(store) == [3]
    with pytest.raises(ConfigError, match="no run of that name"):
        folders.pin(store.runs, first)


def test_every_run_that_was_ever_promoted_on_any_track_is_kept(store: Store) -> None:
    """A user can go back to it; the history may also name a run that is gone."""
    names = add_runs(store, 5)
    track = filled_store.promote(store, names[0], "removed-by-hand", names[1])
    filled_store.promote(store, names[2], track="other")
    gc.collect(store, 0)
    assert seeds(store) == [1, 2, 3]
    assert (track / "promoted.json").exists()


@pytest.mark.parametrize("content", ["", "{}", '[{"name": "x"}]', "[1]", '[{"run": 1}]'])
def test_nothing_is_freed_if_a_history_cannot_be_read(store: Store, content: str) -> None:
    """It is not known then what was promoted."""
    (name,) = add_runs(store, 1)
    (filled_store.promote(store, name) / "promoted.json").write_text(content)
    before = filled_store.contents(store.root)
    for call in (gc.survey, gc.collect):
        with pytest.raises(ArtifactError, match=r"promoted\.json cannot be read.*repair it"):
            call(store, 0)
    assert filled_store.contents(store.root) | {".lock": (b"", 0)} == before | {".lock": (b"", 0)}


def test_failed_runs_are_counted_apart_from_completed_ones(store: Store) -> None:
    """A week of nightly failures does not push out the last good runs."""
    add_runs(store, 3)
    for seed in range(4, 9):
        filled_store.add_run(store, seed, status="failed", error="diverged")
    gc.collect(store, 2)
    assert seeds(store) == [2, 3, 7, 8]


def damage_record(store: Store, name: str) -> Path:
    """Cut off a run.json and return its folder."""
    os.truncate(store.runs / name / "run.json", 100)
    return store.runs / name


def test_a_run_without_a_readable_record_is_left_alone(store: Store) -> None:
    """It does not count as one of the newest, and its artifacts are not kept for it."""
    folder = damage_record(store, add_runs(store, 3)[2])
    found = gc.collect(store, 1)
    assert (folder, "run.json is missing or damaged") in found.left
    assert folder.is_dir()
    assert (seeds(store), n_artifacts(store)) == ([2], 3)


@pytest.mark.parametrize(
    "protect",
    [lambda store, name: folders.pin(store.runs, name), filled_store.promote],
    ids=["pinned", "promoted"],
)
def test_nothing_is_freed_if_a_protected_run_cannot_be_read(
    store: Store, protect: Callable[[Store, str], Path]
) -> None:
    """It is not known then which artifacts the run needs."""
    first = add_runs(store, 3)[0]
    protect(store, first)
    damage_record(store, first)
    with pytest.raises(ArtifactError, match="it is not known which artifacts to keep; repair it"):
        gc.collect(store, 1)
    assert n_artifacts(store) == 1 + 3 * 2


def test_inputs_of_a_kept_artifact_are_kept_though_no_run_names_them(store: Store) -> None:
    """They are found recursively through the manifests."""
    record = filled_store.add_run(store, 1)
    report = next(step for step in record.steps if step.step == "report")
    path = store.runs / record.run / "run.json"
    path.write_text(record.model_copy(update={"steps": (report,)}).model_dump_json())
    gc.collect(store, 1)
    assert (seeds(store), n_artifacts(store)) == ([1], 3)


def test_an_artifact_younger_than_an_hour_is_kept(store: Store) -> None:
    """A killed run has published artifacts that its retry will need."""
    ref = filled_store.publish(store, "dataset", 7)
    folder = filled_store.artifact_path(store, ref)
    filled_store.age(folder, days=0.03)
    assert freed(gc.survey(store, 1)) == {}
    filled_store.age(folder, days=0.05)
    assert list(freed(gc.survey(store, 1))) == [f"dataset/{ref.key}"]


def checkpoint(store: Store, key: str, days: float) -> Path:
    folder = written(store.root / "checkpoints" / key / "step-000000100.npz").parent
    filled_store.age(folder, days)
    return folder


def test_a_running_training_keeps_its_checkpoints_and_its_data(store: Store) -> None:
    """It counts as running while something in its folder changes at least once a day."""
    dataset = filled_store.publish(store, "dataset", 0)
    folder = checkpoint(store, "a" * 64, days=0.9)
    assert freed(gc.survey(store, 1)) == {}
    filled_store.age(folder, days=1.1)
    found = freed(gc.survey(store, 1))
    assert found[f"checkpoints/{'a' * 64}"] == "unchanged for a day"
    assert f"dataset/{dataset.key}" in found
    gc.collect(store, 1)
    assert not folder.exists()
    assert filled_store.is_intact(store)


def test_checkpoints_of_a_finished_training_are_freed_after_an_hour(store: Store) -> None:
    """Unless a run lists the model: it may be training it again."""
    model = filled_store.ref_of(filled_store.add_run(store, 1), "model")
    folder = checkpoint(store, model.key, days=0.03)
    assert freed(gc.survey(store, 1)) == {}
    filled_store.age(folder, days=0.05)
    assert freed(gc.survey(store, 1)) == {f"checkpoints/{model.key}": "its training is over"}
    with in_use.listed(store.root) as uses:
        uses.add(Key("model", store.manifest(model).components))
        assert freed(gc.survey(store, 1)) == {}


def test_leftovers_are_freed_but_not_what_is_being_written(store: Store) -> None:
    """Temporary files, the quarantine, bad downloads, digest caches of artifacts that are gone."""
    model = filled_store.ref_of(filled_store.add_run(store, 1), "model")
    caches = store.root / "store" / ".verified"
    leftovers = {
        store.root / ".scratch.1.part",
        store.root / "store" / ".model-1.1.part",
        store.runs / ".run.1.part",
        store.downloads / "mnist" / ".t10k.gz.1.part",
        store.downloads / "mnist" / "t10k.gz.bad",
        store.root / "quarantine" / "model-1-2",
        caches / f"model-{'a' * 64}.json",
    }
    needed = [
        store.downloads / "mnist" / "t10k.gz",
        caches / f"model-{model.key}.json",
        caches / "downloads-mnist.json",
    ]
    for path in (*leftovers, *needed):
        written(path)
    with atomic.temporary_file(store.runs / "index.parquet") as being_written:
        found = gc.collect(store, 1)
        assert being_written.exists()
    assert {item.path for item in found.freed} == leftovers
    assert not any(path.exists() for path in leftovers)
    assert all(path.exists() for path in needed)


def test_the_digest_cache_of_an_artifact_is_freed_with_it(store: Store) -> None:
    """One collection is enough."""
    ref = filled_store.publish(store, "dataset", 1)
    cache = written(store.root / "store" / ".verified" / f"dataset-{ref.key}.json")
    folder = filled_store.artifact_path(store, ref)
    assert {item.path for item in gc.collect(store, 1).freed} == {folder, cache}
    assert not cache.exists()


def test_foreign_files_and_links_are_named_and_left_alone(store: Store, tmp_path: Path) -> None:
    """A link is not followed, not even inside a folder that is freed."""
    old = store.runs / add_runs(store, 2)[0]
    outside = tmp_path / "outside"
    precious = written(outside / ("c" * 64) / "precious")
    links = {
        store.root / "store" / "model" / ("c" * 64): precious.parent,
        store.root / "quarantine": outside,
        store.runs / "20200101T000000Z-linked": precious.parent,
    }
    for link, target in links.items():
        link.symlink_to(target)
    (old / "inside").symlink_to(outside)
    names = ("notes.txt", "store/model/mine", "runs/x")
    foreign = {*links, *(written(store.root / name) for name in names)}
    assert {path for path, _ in gc.collect(store, 1).left} == foreign
    assert all(path.exists() for path in foreign)
    assert precious.exists()
    assert not old.exists()


def test_an_artifact_that_a_run_has_listed_is_kept_until_the_run_ends(store: Store) -> None:
    """A run lists artifacts before it makes them, and before any run.json names them."""
    ref = filled_store.publish(store, "dataset", 1)
    key, unmade = Key("dataset", store.manifest(ref).components), Key("report", {"not": "made yet"})
    with in_use.listed(store.root) as uses:
        uses.add(unmade)
        uses.add(key)
        gc.collect(store, 1)
        assert store.find(key).manifest
        assert in_use.read(store.root) == {("report", unmade.digest), ("dataset", ref.key)}
    uses.add(key)  # a step that continues after its run has failed
    assert not filled_store.temporaries(store)
    gc.collect(store, 1)
    assert store.find(key).manifest is None


def test_the_list_of_a_killed_run_keeps_nothing(store: Store) -> None:
    """Its lock ended with the process."""
    ref = filled_store.publish(store, "dataset", 1)
    code = f"""
import os, signal
from pathlib import Path
from cnn.store import in_use
from cnn.store.keys import Key
from cnn.store.store import Store
store = Store(Path({str(store.root)!r}))
with in_use.listed(store.root) as uses:
    uses.add(Key("dataset", next(store.manifests("dataset")).components))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert len(filled_store.temporaries(store)) == 1
    assert freed(gc.collect(store, 1))[f"dataset/{ref.key}"] == "no kept run needs it"
    assert not filled_store.temporaries(store)


def test_an_artifact_that_vanishes_during_gc_or_verify_is_not_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may move it to the quarantine."""
    ref = filled_store.publish(store, "dataset", 1)
    folder = filled_store.artifact_path(store, ref)
    monkeypatch.setattr(layout, "artifacts", lambda root: iter([("dataset", folder)]))
    shutil.rmtree(folder)
    assert [item.n_bytes for item in gc.survey(store, 1).freed] == [0]
    gc.collect(store, 1)
    assert verify.verify(store).broken == []


def test_a_run_cannot_list_an_artifact_while_gc_decides(store: Store) -> None:
    """It waits, and then does not find what was freed."""
    ref = filled_store.publish(store, "dataset", 1)
    key = Key("dataset", store.manifest(ref).components)
    seen: list[Any] = []

    def use() -> None:
        with in_use.listed(store.root) as uses:
            uses.add(key)
            seen.append(store.find(key).manifest)

    with in_use.exclusive_lock(store.root):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert seen == []
        atomic.discard(filled_store.artifact_path(store, ref), store.root / "store")
    thread.join(10)
    assert seen == [None]


_KILLED = """
import importlib, os, signal, sys
from pathlib import Path
from cnn.commands import gc
from cnn.store.store import Store
_, root, module, name, left = sys.argv
module, left = importlib.import_module(module), int(left)
function = getattr(module, name)
def count_down(*given, **named):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*given, **named)
setattr(module, name, count_down)
gc.collect(Store(Path(root)), 1)
"""


@pytest.mark.parametrize(
    ("module", "function", "n"),
    [("cnn.io.atomic", "discard", 1), ("cnn.io.atomic", "discard", 6), ("os", "unlink", 1)],
)
def test_a_killed_gc_leaves_only_temporaries_that_the_next_one_sweeps(
    store: Store, module: str, function: str, n: int
) -> None:
    """Killed before the n-th rename or deletion; runs and artifacts that can be seen are whole."""
    add_runs(store, 4)
    words = [sys.executable, "-c", _KILLED, str(store.root), module, function, str(n)]
    assert subprocess.run(words, check=False).returncode == -9
    assert {item.path.name for item in verify.verify(store).broken} <= {"index.parquet"}
    for half in (store.root / "store").glob(".*.part"):
        next(half.iterdir()).unlink(missing_ok=True)
    gc.collect(store, 1)
    assert filled_store.is_intact(store)
    assert (seeds(store), n_artifacts(store)) == ([4], 3)


def collect_for_seconds(root: Path) -> int:
    """Collect again and again for three seconds; return how many things were freed."""
    n_freed, ends_at = 0, time.monotonic() + 3
    while time.monotonic() < ends_at:
        n_freed += len(gc.collect(Store(root), 0).freed)
    return n_freed


def use_for_seconds(root: Path) -> int:
    """Use or make an old artifact as a run does, for three seconds; return how often."""
    store, n_used, ends_at = Store(root), 0, time.monotonic() + 3
    while time.monotonic() < ends_at:
        seed = n_used % 3
        with in_use.listed(root) as uses:
            key = Key("dataset", {"settings": {"seed": seed}, "inputs": {}})
            uses.add(key)
            manifest = store.find(key).manifest
            ref = manifest.ref if manifest else filled_store.publish(store, "dataset", seed)
            for _ in range(5):
                assert (store.open(ref) / "images.npy").read_text() == f"dataset {seed}"
        n_used += 1
    return n_used


@pytest.mark.slow
def test_runs_and_gcs_at_once_never_see_half_an_artifact(store: Store) -> None:
    """An artifact that a run has listed can be opened as long as the run lasts."""
    store.root.mkdir()
    work = (use_for_seconds, use_for_seconds, collect_for_seconds, collect_for_seconds)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(work), context, context.Barrier(len(work)).wait) as pool:
        counts = [future.result() for future in [pool.submit(call, store.root) for call in work]]
    assert min(counts[:2]) > 3
    assert sum(counts[2:]) > 3
    gc.collect(store, 0)
    assert filled_store.is_intact(store)
    assert list((store.root / "store/dataset").iterdir()) == []


def test_a_temporary_folder_that_another_process_has_just_made_is_not_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment its lock is not held yet."""
    add_runs(store, 1)
    fresh = store.root / "store" / ".model-1.1.part"
    monkeypatch.setattr(index, "rebuild", lambda _: fresh.mkdir())
    assert gc.collect(store, 0).freed
    assert fresh.exists()


# How to make a folder that cannot be removed, and how to undo it.
_FOR_ROOT = (("mount", "-t", "tmpfs", "tmpfs"), ("umount", "--lazy"))
_FOR_USERS = (("chmod", "u-w"), ("chmod", "u+w"))


def test_a_folder_that_cannot_be_removed_is_named(store: Store) -> None:
    """The next gc removes it once that is possible."""
    folder = store.runs / add_runs(store, 2)[0] / "figures"
    fix, free = _FOR_ROOT if os.geteuid() == 0 else _FOR_USERS
    if subprocess.run([*fix, folder], check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(ConfigError, match=r"\.part cannot be removed"):
            gc.collect(store, 1)
    finally:
        for path in store.runs.glob(".*.part/figures"):
            subprocess.run([*free, path], check=True)
    gc.collect(store, 1)
    assert filled_store.is_intact(store)


def test_a_comparison_is_kept_as_long_as_both_its_runs(store: Store) -> None:
    """Even if the names of the runs contain the separator."""
    names = add_runs(store, 3, data="a--b")
    pairs = [(names[0], names[2]), (names[1], names[2]), (names[2], names[1])]
    compared = [layout.compared_name(*pair) for pair in pairs]
    for name in compared:
        written(store.root / "compared" / name / "comparison.json", "{}")
    found = gc.collect(store, 2)
    assert [item.path.name for item in found.freed if item.what == "compared"] == compared[:1]
    assert found.left == ()
    assert {path.name for path in (store.root / "compared").iterdir()} == set(compared[1:])
    assert filled_store.is_intact(store)


def test_a_search_is_kept_as_long_as_its_run(store: Store) -> None:
    """One with a damaged record is freed."""
    ref = Ref(kind="patches", key="a" * 64, digest="b" * 64)
    fields = {"layer": "conv2", "data": "digits", "config": {}, "n_patches": 1}
    refs = {"model": ref, "dataset": ref, "patches": ref}
    searched = [
        searches.publish(
            store.root, searches.record_of(run=run, **fields, **refs), lambda folder: None
        )
        for run in add_runs(store, 3)
    ]
    (searched[2] / searches.RECORD_NAME).write_text("{}")
    found = gc.collect(store, 2)
    assert [item.path for item in found.freed if item.what == "mined"] == [searched[0], searched[2]]
    assert [path for path in searched if path.exists()] == [searched[1]]
    assert found.left == ()
    assert filled_store.is_intact(store)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a--b", True), ("b--a--x", True), ("a--x--b", True), ("a", False), ("a--c", False)],
)
def test_the_folder_of_a_comparison_names_both_runs(name: str, expected: bool) -> None:
    """Also if a run's own name contains the separator."""
    assert layout.compares(name, {"a", "b", "a--x"}) == expected
