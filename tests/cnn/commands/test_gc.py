"""Freeing what no run needs: what stays, what goes, and what happens beside other processes."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnn.commands import gc, verify
from cnn.commands.gc import Survey
from cnn.errors import ArtifactError, ConfigError
from cnn.io import atomic
from cnn.runs import folders, index, records, searches
from cnn.runs.records import RunRecord
from cnn.store import in_use, layout
from cnn.store.keys import Key
from cnn.store.refs import Ref
from cnn.store.store import Store
from cnn.tables import parquet
from tests.cnn.commands import filled_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that does not exist yet."""
    return Store(tmp_path / "artifacts")


def named(found: Survey) -> dict[str, str]:
    """Return what is freed, and why, by its place below the root."""
    return {"/".join(item.path.parts[-2:]): item.why for item in found.freed}


def kept(store: Store) -> tuple[list[int], int]:
    """Return the seeds of the runs that are there, and how many artifacts."""
    n_artifacts = sum(1 for _ in (store.root / "store").glob("[!.]*/*"))
    return [record.seed for record in records.read_all(store.runs)], n_artifacts


def hidden(store: Store) -> list[Path]:
    locks = {".lock", ".index.lock", ".verified", ".lease.lock"}
    return [path for path in store.root.rglob(".*") if path.name not in locks]


def is_clean(store: Store) -> bool:
    return not verify.verify(store).broken and not hidden(store)


def test_the_last_runs_stay_with_what_they_were_made_from(store: Store) -> None:
    """Older runs go, with the artifacts that are theirs alone."""
    for seed in range(1, 5):
        filled_store.add_run(store, seed, data_seed=seed % 2)
    found = gc.collect(store, 2)
    assert kept(store) == ([3, 4], 2 + 2 * 2)
    assert [item.what for item in found.freed].count("run") == 2
    assert [item.what for item in found.freed].count("model") == 2
    assert {item.why for item in found.freed} == {
        "completed; not among the last",
        "no run that is kept needs it",
    }
    assert is_clean(store)
    rows = parquet.read(store.runs / "index.parquet").to_pylist()
    assert [row["seed"] for row in rows] == [3, 4]
    for record in records.read_all(store.runs):
        for step in record.steps:
            assert step.ref
            store.open(step.ref)


def test_without_apply_nothing_is_changed(store: Store) -> None:
    """What would go is said, with its size, and is what goes then."""
    for seed in range(1, 4):
        filled_store.add_run(store, seed)
    before = filled_store.contents(store.root)
    found = gc.survey(store, 1)
    assert filled_store.contents(store.root) == before
    sizes = {item.path: item.n_bytes for item in found.freed}
    for path, n_bytes in sizes.items():
        whole = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
        assert n_bytes == sum(item.stat().st_size for item in whole) > 0
    assert gc.collect(store, 1) == found
    assert not any(path.exists() for path in sizes)
    assert gc.survey(store, 1).freed == ()


def test_a_store_without_anything_stays_so(store: Store) -> None:
    """Nothing is there, nothing is freed, and nothing is created."""
    for call in (gc.survey, gc.collect):
        assert call(store, 10) == Survey((), (), ())
    assert not store.root.exists()


def test_pinned_runs_stay(store: Store) -> None:
    """Until they are unpinned."""
    for seed in range(1, 4):
        filled_store.add_run(store, seed)
    first = next(records.read_all(store.runs)).run
    assert folders.pin(store.runs, first) == store.runs / first
    assert folders.is_pinned(store.runs / first)
    found = gc.collect(store, 1)
    assert kept(store) == ([1, 3], 1 + 2 * 2)
    assert {item.path.name: item.why for item in found.kept}[first] == "pinned"
    folders.unpin(store.runs, first)
    folders.unpin(store.runs, first)  # twice is no error
    gc.collect(store, 1)
    assert kept(store)[0] == [3]
    with pytest.raises(ConfigError, match="no run of that name"):
        folders.pin(store.runs, first)


def promote(store: Store, *names: str, track: str = "main") -> Path:
    folder = store.root / "promoted" / track
    folder.mkdir(parents=True)
    history = [{"run": name, "at": "2026-01-01"} for name in names]
    (folder / "promoted.json").write_text(json.dumps(history))
    return folder / "promoted.json"


def test_every_run_that_was_promoted_on_any_track_stays(store: Store) -> None:
    """The history names runs to go back to; one that is gone already is no error."""
    names = [filled_store.add_run(store, seed).run for seed in range(1, 6)]
    promote(store, names[0], "removed-by-hand", names[1])
    promote(store, names[2], track="other")
    gc.collect(store, 0)
    assert kept(store)[0] == [1, 2, 3]
    assert (store.root / "promoted/main/promoted.json").exists()


@pytest.mark.parametrize("content", ["", "{}", '[{"name": "x"}]', "[1]", '[{"run": 1}]'])
def test_a_history_that_cannot_be_read_frees_nothing(store: Store, content: str) -> None:
    """What was promoted is not known then, and nothing may go."""
    record = filled_store.add_run(store, 1)
    promote(store, record.run).write_text(content)
    before = filled_store.contents(store.root)
    for call in (gc.survey, gc.collect):
        with pytest.raises(ArtifactError, match=r"promoted\.json cannot be read.*mend it"):
            call(store, 0)
    assert filled_store.contents(store.root) | {".lock": (b"", 0)} == before | {".lock": (b"", 0)}


def test_failed_runs_do_not_push_out_completed_ones(store: Store) -> None:
    """A week of nightly failures leaves the last good runs; failed ones are counted alone."""
    for seed in range(1, 4):
        filled_store.add_run(store, seed)
    for seed in range(4, 9):
        filled_store.add_run(store, seed, status="failed", error="diverged")
    gc.collect(store, 2)
    assert kept(store)[0] == [2, 3, 7, 8]


def break_record(store: Store, record: RunRecord) -> Path:
    path = store.runs / record.run / "run.json"
    path.write_text(path.read_text()[:-100])
    return path.parent


def test_a_run_without_a_readable_record_is_left_alone(store: Store) -> None:
    """It is named; it neither counts among the last nor protects artifacts."""
    made = [filled_store.add_run(store, seed) for seed in range(1, 4)]
    folder = break_record(store, made[2])
    found = gc.collect(store, 1)
    assert (folder, "run.json is missing or damaged") in found.left
    assert folder.is_dir()
    assert kept(store) == ([2], 3)


@pytest.mark.parametrize("protect", ["pin", "promote"])
def test_a_protected_run_without_a_readable_record_frees_nothing(
    store: Store, protect: str
) -> None:
    """What it needs is not known: a person has to look."""
    made = [filled_store.add_run(store, seed) for seed in range(1, 4)]
    if protect == "pin":
        folders.pin(store.runs, made[0].run)
    else:
        promote(store, made[0].run)
    break_record(store, made[0])
    with pytest.raises(ArtifactError, match="it is not known which artifacts to keep; mend it"):
        gc.collect(store, 1)
    assert kept(store)[1] == 1 + 3 * 2


def test_what_a_kept_artifact_was_made_from_stays_though_no_run_names_it(store: Store) -> None:
    """Inputs are followed through the manifests, however deep."""
    record = filled_store.add_run(store, 1)
    report = next(step for step in record.steps if step.step == "report")
    path = store.runs / record.run / "run.json"
    path.write_text(record.model_copy(update={"steps": (report,)}).model_dump_json())
    gc.collect(store, 1)
    assert kept(store) == ([1], 3)


def test_what_is_young_stays_for_a_run_that_is_started_again(store: Store) -> None:
    """A run that was killed has published steps that no run.json names."""
    ref = filled_store.publish(store, "dataset", 7)
    folder = filled_store.artifact_path(store, ref)
    filled_store.age(folder, days=0.03)
    assert named(gc.survey(store, 1)) == {}
    filled_store.age(folder, days=0.05)
    assert list(named(gc.survey(store, 1))) == [f"dataset/{ref.key}"]


def checkpoint(store: Store, key: str, days: float) -> Path:
    folder = store.root / "checkpoints" / key
    folder.mkdir(parents=True)
    (folder / "step-000000100.npz").write_text("state")
    filled_store.age(folder, days)
    return folder


def test_a_training_under_way_keeps_its_checkpoints_and_its_data(store: Store) -> None:
    """It is under way while something in its folder changes at least once a day."""
    dataset = filled_store.publish(store, "dataset", 0)
    folder = checkpoint(store, "a" * 64, days=0.9)
    assert named(gc.survey(store, 1)) == {}
    filled_store.age(folder, days=1.1)
    found = named(gc.survey(store, 1))
    assert found[f"checkpoints/{'a' * 64}"] == "untouched for a day"
    assert f"dataset/{dataset.key}" in found
    gc.collect(store, 1)
    assert not folder.exists()
    assert is_clean(store)


def test_checkpoints_of_a_finished_training_go(store: Store) -> None:
    """After an hour, unless a run lists its model: it may be training it anew."""
    record = filled_store.add_run(store, 1)
    model = filled_store.ref_of(record, "model")
    folder = checkpoint(store, model.key, days=0.03)
    assert named(gc.survey(store, 1)) == {}
    filled_store.age(folder, days=0.05)
    assert named(gc.survey(store, 1)) == {f"checkpoints/{model.key}": "the training is over"}
    components = store.manifest(model).components
    with in_use.listed(store.root) as uses:
        uses.add(Key("model", components))
        assert named(gc.survey(store, 1)) == {}


def test_what_processes_left_goes_and_what_is_written_stays(store: Store) -> None:
    """Temporaries, the quarantine, downloads set aside, memories of artifacts that are gone."""
    record = filled_store.add_run(store, 1)
    leftovers = [
        store.root / ".scratch.1.part",
        store.root / "store" / ".model-1.1.part",
        store.runs / ".run.1.part",
        store.downloads / "mnist" / ".t10k.gz.1.part",
        store.downloads / "mnist" / "t10k.gz.bad",
        store.root / "quarantine" / "model-1-2",
        store.root / "store" / ".verified" / f"model-{'a' * 64}.json",
    ]
    for path in leftovers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left")
    fetched = store.downloads / "mnist" / "t10k.gz"
    fetched.write_text("data")
    memory = (
        store.root
        / "store"
        / ".verified"
        / f"model-{filled_store.ref_of(record, 'model').key}.json"
    )
    memory.write_text("{}")
    fetched_memory = memory.with_name("downloads-mnist.json")
    fetched_memory.write_text("{}")
    with atomic.temporary_file(store.runs / "index.parquet") as written:
        found = gc.collect(store, 1)
        assert written.exists()
    assert {item.path for item in found.freed} == set(leftovers)
    assert not any(path.exists() for path in leftovers)
    assert fetched.exists()
    assert memory.exists()
    assert fetched_memory.exists()


def test_what_is_remembered_of_an_artifact_goes_with_it(store: Store) -> None:
    """One gc is enough: nothing is left to be freed."""
    ref = filled_store.publish(store, "dataset", 1)
    memory = store.root / "store" / ".verified" / f"dataset-{ref.key}.json"
    memory.parent.mkdir()
    memory.write_text("{}")
    assert {item.path for item in gc.collect(store, 1).freed} == {
        filled_store.artifact_path(store, ref),
        memory,
    }
    assert not memory.exists()


def test_what_is_not_of_the_store_is_left_and_named(store: Store, tmp_path: Path) -> None:
    """Foreign files, and links, which lead nowhere."""
    filled_store.add_run(store, 1)
    filled_store.add_run(store, 2)
    outside = tmp_path / "outside"
    (outside / ("c" * 64)).mkdir(parents=True)
    (outside / ("c" * 64) / "precious").write_text("precious")
    link = store.root / "store" / "model" / ("c" * 64)
    link.symlink_to(outside / ("c" * 64))
    whole = store.root / "quarantine"
    whole.symlink_to(outside)
    run = store.runs / "20200101T000000Z-linked"
    run.symlink_to(outside / ("c" * 64))
    foreign = [store.root / "notes.txt", store.root / "store" / "model" / "mine", store.runs / "x"]
    for path in foreign:
        path.write_text("mine")
    old = store.runs / next(records.read_all(store.runs)).run
    (old / "inside").symlink_to(outside)
    found = gc.collect(store, 1)
    assert {path for path, _ in found.left} == {link, whole, run, *foreign}
    assert all(path.exists() for path in (link, whole, run, *foreign))
    assert (outside / ("c" * 64) / "precious").read_text() == "precious"
    assert not old.exists()


def test_what_a_run_under_way_has_listed_stays(store: Store) -> None:
    """Before it is made, and though no run.json names it, until the run is over."""
    ref = filled_store.publish(store, "dataset", 1)
    key = Key("dataset", store.manifest(ref).components)
    with in_use.listed(store.root) as uses:
        uses.add(Key("report", {"not": "made yet"}))
        uses.add(key)
        gc.collect(store, 1)
        assert store.find(key).manifest
        assert in_use.read(store.root) == {
            ("report", Key("report", {"not": "made yet"}).digest),
            ("dataset", ref.key),
        }
    uses.add(key)  # a step that goes on after its run failed
    assert not hidden(store)
    gc.collect(store, 1)
    assert store.find(key).manifest is None


def test_the_list_of_a_killed_run_holds_nothing(store: Store) -> None:
    """Its lock ended with it."""
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
    assert len(hidden(store)) == 1
    found = named(gc.collect(store, 1))
    assert found[f"dataset/{ref.key}"] == "no run that is kept needs it"
    assert not hidden(store)


def test_an_artifact_that_goes_away_meanwhile_is_no_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may set one aside while gc or verify looks."""
    ref = filled_store.publish(store, "dataset", 1)
    folder = filled_store.artifact_path(store, ref)
    monkeypatch.setattr(layout, "artifacts", lambda root: iter([("dataset", folder)]))
    shutil.rmtree(folder)
    assert [item.n_bytes for item in gc.survey(store, 1).freed] == [0]
    gc.collect(store, 1)
    assert verify.verify(store).broken == []


def test_a_list_does_not_grow_while_gc_decides(store: Store) -> None:
    """A run that lists an artifact waits, and then does not find what has been taken away."""
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


def test_a_gc_that_is_killed_leaves_only_what_the_next_one_sweeps(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any number of renames, and in the middle of removing, nothing is half there."""
    for seed in range(1, 5):
        filled_store.add_run(store, seed)
    discard: Callable[[Path, Path], Path] = atomic.discard
    done: list[Path] = []

    def dies_after_five(path: Path, folder: Path) -> Path:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(path)
        return discard(path, folder)

    monkeypatch.setattr(atomic, "discard", dies_after_five)
    with pytest.raises(KeyboardInterrupt):
        gc.collect(store, 1)
    monkeypatch.undo()
    problems = {item.what for item in verify.verify(store).broken}
    assert all("runs and there are" in problem for problem in problems)
    half = next(iter((store.root / "store").glob(".*.part")))
    next(half.iterdir()).unlink()
    gc.collect(store, 1)
    assert is_clean(store)
    assert kept(store) == ([4], 3)


def test_a_temporary_that_another_process_has_just_made_is_no_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment it is there and nobody holds its lock."""
    filled_store.add_run(store, 1)
    fresh = store.root / "store" / ".model-1.1.part"
    monkeypatch.setattr(index, "rebuild", lambda _: fresh.mkdir())
    assert gc.collect(store, 0).freed
    assert fresh.exists()


# What makes a folder one that cannot be removed, and takes it back.
_KEPT_FROM_ROOT = (("mount", "-t", "tmpfs", "tmpfs"), ("umount", "--lazy"))
_KEPT_FROM_USERS = (("chmod", "u-w"), ("chmod", "u+w"))


def test_what_cannot_be_removed_is_said(store: Store) -> None:
    """A folder that is not ours to empty ends as an error with its path."""
    filled_store.add_run(store, 1)
    filled_store.add_run(store, 2)
    folder = store.runs / next(records.read_all(store.runs)).run / "figures"
    fix, free = _KEPT_FROM_ROOT if os.geteuid() == 0 else _KEPT_FROM_USERS
    if subprocess.run([*fix, folder], check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(ConfigError, match=r"\.part cannot be removed"):
            gc.collect(store, 1)
    finally:
        for path in store.runs.glob(".*.part/figures"):
            subprocess.run([*free, path], check=True)
    gc.collect(store, 1)
    assert is_clean(store)


def test_a_comparison_stays_as_long_as_both_its_runs_do(store: Store) -> None:
    """It is no stranger; it goes with the first of its runs, and whatever lies in it."""
    names = [filled_store.add_run(store, seed, data="a--b").run for seed in range(1, 4)]
    pairs = [(names[0], names[2]), (names[1], names[2]), (names[2], names[1])]
    for before, after in pairs:
        folder = store.root / "compared" / layout.compared_name(before, after)
        folder.mkdir(parents=True)
        (folder / "comparison.json").write_text("{}")
    found = gc.collect(store, 2)
    assert [item.path.name for item in found.freed if item.what == "compared"] == [
        layout.compared_name(names[0], names[2])
    ]
    assert found.left == ()
    there = {path.name for path in (store.root / "compared").iterdir()}
    assert there == {layout.compared_name(*pair) for pair in pairs[1:]}
    assert is_clean(store)


def test_a_search_stays_as_long_as_its_run_does(store: Store) -> None:
    """One whose record is damaged goes."""
    names = [filled_store.add_run(store, seed).run for seed in range(1, 4)]
    ref = Ref(kind="patches", key="a" * 64, digest="b" * 64)
    kinds = {"model": ref, "dataset": ref, "patches": ref}
    searched = []
    for run in names:
        record = searches.record_of(
            run=run, layer="conv2", data="digits", config={}, n_patches=1, **kinds
        )
        searched.append(searches.publish(store.root, record, lambda folder: None))
    (searched[2] / searches.RECORD_NAME).write_text("{}")
    found = gc.collect(store, 2)
    assert [item.path for item in found.freed if item.what == "mined"] == [searched[0], searched[2]]
    assert [path for path in searched if path.exists()] == [searched[1]]
    assert found.left == ()
    assert is_clean(store)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("a--b", True), ("b--a--x", True), ("a--x--b", True), ("a", False), ("a--c", False)],
)
def test_the_folder_of_a_comparison_names_both_runs(name: str, wanted: bool) -> None:
    """Runs whose own names have two dashes among them."""
    assert layout.compares(name, {"a", "b", "a--x"}) == wanted
