"""The commands that keep a store: verify, gc, pin, unpin."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cnn.commands import gc, verify
from cnn.runs import folders, records
from cnn.store.store import Store
from flows.train_and_explain import train_and_explain
from tests.cnn.commands import filled_store
from tests.flows.conftest import Finished
from tests.flows.test_cli import Command, command

__all__ = ["command"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store that the command finds, with three runs on one data set."""
    monkeypatch.setattr(verify, "SETTLE_SECONDS", 0.0)
    store = Store(tmp_path / "artifacts")
    for seed in range(1, 4):
        filled_store.add_run(store, seed)
    return store


def first(store: Store) -> str:
    return next(records.read_all(store.runs)).run


def test_verify_ends_with_0_and_says_what_it_looked_at(command: Command, store: Store) -> None:
    """One line where nothing is broken, and in an empty store too."""
    assert command("verify") == (
        0,
        "nothing is broken in 7 artifacts, 3 runs, 25 files, 189 bytes\n",
        "",
    )
    found = json.loads(command("verify", "--json")[1])
    assert found == {"n_artifacts": 7, "n_runs": 3, "n_files": 25, "n_bytes": 189, "broken": []}
    code, output, _ = command("verify", "--store", str(store.root.with_name("none")))
    assert (code, output) == (0, "nothing is broken in 0 artifacts, 0 runs, 0 files, 0 bytes\n")
    assert not store.root.with_name("none").exists()


def test_verify_ends_with_1_and_a_line_for_each_broken_thing(
    command: Command, store: Store
) -> None:
    """Path and what is wrong with it, and what to do; nothing is changed."""
    model = filled_store.artifact_path(
        store, filled_store.ref_of(records.read(store.runs / first(store)), "model")
    )
    (model / "model.json").write_text("model 9")
    (store.runs / first(store) / "figures" / "history.png").write_text("edited")
    before = filled_store.contents(store.root)
    code, output, errors = command("verify")
    assert (code, errors) == (1, "")
    lines = output.splitlines()
    assert lines[:2] == [
        f"{model}: model.json was changed",
        f"{store.runs / first(store) / 'figures/history.png'}: was changed since it was copied "
        "from its artifact",
    ]
    assert "A run makes broken artifacts anew" in output
    assert lines[-1].startswith("2 broken things in 7 artifacts, 3 runs, 25 files, ")
    code, output, _ = command("verify", "--json")
    broken = json.loads(output)["broken"]
    assert code == 1
    assert broken[0] == {"path": str(model), "what": "model.json was changed"}
    assert filled_store.contents(store.root) == before


def test_gc_only_says_what_it_would_free(command: Command, store: Store) -> None:
    """Each thing with its size and why it goes, and the totals; --apply does it."""
    before = filled_store.contents(store.root)
    code, output, _ = command("gc", "--keep", "2")
    assert code == 0
    assert f"{store.runs / first(store)}  (completed; not among the last)" in output
    assert output.count("(no run that is kept needs it)") == 2
    assert "3 things, " in output
    assert "would be freed; gc --apply does it" in output
    assert "7 things, " in output
    assert filled_store.contents(store.root) == before
    code, output, _ = command("gc", "--keep", "2", "--apply")
    assert code == 0
    assert " freed\n" in output
    assert "bytes are free on the disk; before, " in output
    assert [record.seed for record in records.read_all(store.runs)] == [2, 3]
    assert command("verify")[0] == 0
    assert "0 things, 0 bytes would be freed" in command("gc", "--keep", "2")[1]


def test_gc_tells_machines_the_same(command: Command, store: Store) -> None:
    """With --json: what goes, what stays and why, what was left alone, the room on the disk."""
    (store.root / "notes.txt").write_text("ours")
    told = json.loads(command("gc", "--keep", "1", "--json")[1])
    assert told["applied"] is False
    assert {item["what"] for item in told["freed"]} == {"run", "model", "report"}
    assert all(item["n_bytes"] > 0 for item in told["freed"])
    assert {item["why"] for item in told["kept"] if item["what"] == "run"} == {
        "one of the last 1 completed"
    }
    notes = str(store.root / "notes.txt")
    assert told["left"] == [[notes, "is nothing that belongs into a store"]]
    assert told["free_bytes"] > 0
    assert f"left alone: {notes} " in command("gc")[1]


def test_gc_keeps_ten_runs_unless_told_otherwise(command: Command, store: Store) -> None:
    """And refuses a number that is none."""
    for seed in range(4, 13):
        filled_store.add_run(store, seed)
    command("gc", "--apply")
    assert [record.seed for record in records.read_all(store.runs)] == list(range(3, 13))
    for word in ("-1", "1.5", "many", "1e3", "²"):
        code, _, errors = command("gc", "--keep", word)
        assert code == 2
        assert f"--keep: {word!r} is refused; expected a whole number >= 0" in errors


def test_a_pinned_run_is_shown_as_such_and_stays(command: Command, store: Store) -> None:
    """In the list, in its own page and for machines; unpin takes it back."""
    name = first(store)
    code, _, errors = command("pin", name)
    assert (code, errors) == (0, f"{name} is pinned: gc keeps it and what it was made from\n")
    assert "pinned" in command("runs")[1]
    assert "Pinned: gc keeps it" in command("show", name)[1]
    assert json.loads(command("show", name, "--json")[1])["pinned"] is True
    pinned = {item["run"]: item["pinned"] for item in json.loads(command("runs", "--json")[1])}
    assert [run for run, is_pinned in pinned.items() if is_pinned] == [name]
    command("gc", "--keep", "1", "--apply")
    assert [record.seed for record in records.read_all(store.runs)] == [1, 3]
    assert command("verify")[0] == 0
    code, _, errors = command("unpin", name)
    assert (code, errors) == (0, f"{name} is not pinned\n")
    assert "pinned" not in command("runs")[1]


def test_pinning_what_is_not_there_is_refused(command: Command, store: Store) -> None:
    """Nothing is created, in an empty store either."""
    for verb in ("pin", "unpin"):
        code, _, errors = command(verb, "no-such-run")
        assert (code, "no run of that name" in errors) == (2, True)
    code, _, _ = command("pin", "--store", str(store.root.with_name("none")))
    assert code == 2
    assert not store.root.with_name("none").exists()


def test_after_gc_a_plan_for_a_kept_run_is_all_cached(
    command: Command, finished: Finished, tmp_path: Path
) -> None:
    """A real run keeps everything that it was made from; freed, everything is to be made anew."""
    root = tmp_path / "artifacts"
    shutil.copytree(finished.store, root, symlinks=True)
    shutil.rmtree(root / "promoted")  # a promoted run stays whatever is kept
    filled_store.age(root)
    words = ["--data.source", "digits", "--train.steps", "60", "--train.log-every", "20", "--json"]
    for keep, state in (("1", "cached"), ("0", "run")):
        assert command("gc", "--keep", keep, "--apply")[0] == 0
        assert json.loads(command("plan", *words)[1])[0]["state"] == state
        assert command("verify")[0] == 0
        wanted = {"cached"} if keep == "1" else {"run", "depends"}
        assert {item["state"] for item in json.loads(command("plan", *words)[1])} == wanted


def test_gc_takes_nothing_from_a_run_under_way(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old artifacts that no run names, which a run has found cached, are there when it ends."""
    root = tmp_path / "artifacts"
    shutil.copytree(finished.store, root, symlinks=True)
    for name in ("runs", "promoted"):
        shutil.rmtree(root / name)
    filled_store.age(root)
    publish = folders.publish
    seen: list[set[str]] = []

    def after_gc(*arguments: Any, **more: Any) -> Any:
        seen.append({item.why for item in gc.collect(Store(root), 0).kept})
        return publish(*arguments, **more)

    monkeypatch.setattr(folders, "publish", after_gc)
    folder = train_and_explain(finished.config, store=root)
    assert seen == [{"in use"}]
    assert [step.state for step in records.read(folder).steps] == ["cached"] * 6
    assert verify.verify(Store(root)).broken == []
    shutil.rmtree(root / "promoted")
    filled_store.age(root)
    assert len(gc.collect(Store(root), 0).freed) >= 7
