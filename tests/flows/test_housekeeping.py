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
from tests.flows.conftest import SHORT_WORDS, Command, Finished


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The command's store, with three runs on one data set."""
    monkeypatch.setattr(verify, "SETTLE_SECONDS", 0.0)
    store = Store(tmp_path / "artifacts")
    for seed in range(1, 4):
        filled_store.add_run(store, seed)
    return store


def first(store: Store) -> str:
    return next(records.read_all(store.runs)).run


def test_verify_ends_with_0_and_counts_what_it_verified(command: Command, filled: Store) -> None:
    """It prints one line if nothing is broken, even for an empty store."""
    assert command("verify") == (
        0,
        "nothing is broken in 7 artifacts, 3 runs, 25 files, 189 bytes\n",
        "",
    )
    found = json.loads(command("verify", "--json")[1])
    assert found == {"n_artifacts": 7, "n_runs": 3, "n_files": 25, "n_bytes": 189, "broken": []}
    code, output, _ = command("verify", "--store", str(filled.root.with_name("none")))
    assert (code, output) == (0, "nothing is broken in 0 artifacts, 0 runs, 0 files, 0 bytes\n")
    assert not filled.root.with_name("none").exists()


def test_verify_ends_with_1_and_a_line_per_broken_file(command: Command, filled: Store) -> None:
    """Each line has path and fault; advice follows, and nothing is changed."""
    model = filled_store.artifact_path(
        filled, filled_store.ref_of(records.read(filled.runs / first(filled)), "model")
    )
    (model / "model.json").write_text("model 9")
    (filled.runs / first(filled) / "figures" / "history.png").write_text("edited")
    before = filled_store.contents(filled.root)
    code, output, errors = command("verify")
    assert (code, errors) == (1, "")
    lines = output.splitlines()
    assert lines[:2] == [
        f"{model}: model.json was changed",
        f"{filled.runs / first(filled) / 'figures/history.png'}: was changed since it was copied "
        "from its artifact",
    ]
    assert "Run again to rebuild broken artifacts" in output
    assert lines[-1].startswith("2 broken items in 7 artifacts, 3 runs, 25 files, ")
    code, output, _ = command("verify", "--json")
    broken = json.loads(output)["broken"]
    assert code == 1
    assert broken[0] == {"path": str(model), "what": "model.json was changed"}
    assert filled_store.contents(filled.root) == before


def test_gc_lists_what_it_would_free_and_frees_it_with_apply(
    command: Command, filled: Store
) -> None:
    """The list has the reason for each item, and the totals."""
    before = filled_store.contents(filled.root)
    code, output, _ = command("gc", "--keep", "2")
    assert code == 0
    assert f"{filled.runs / first(filled)}  (completed; not among the last)" in output
    assert output.count("(no kept run needs it)") == 2
    assert "3 items, " in output
    assert "can be freed with gc --apply" in output
    assert "7 items, " in output
    assert filled_store.contents(filled.root) == before
    code, output, _ = command("gc", "--keep", "2", "--apply")
    assert code == 0
    assert " freed\n" in output
    assert " bytes are free on the disk, " in output
    assert [record.seed for record in records.read_all(filled.runs)] == [2, 3]
    assert command("verify")[0] == 0
    assert "0 items, 0 bytes can be freed" in command("gc", "--keep", "2")[1]


def test_gc_prints_json(command: Command, filled: Store) -> None:
    """It has what goes, what stays and why, what is left alone, and the free bytes."""
    (filled.root / "notes.txt").write_text("ours")
    printed = json.loads(command("gc", "--keep", "1", "--json")[1])
    assert printed["applied"] is False
    assert {item["what"] for item in printed["freed"]} == {"run", "model", "report"}
    assert all(item["n_bytes"] > 0 for item in printed["freed"])
    assert {item["why"] for item in printed["kept"] if item["what"] == "run"} == {
        "one of the last 1 completed"
    }
    notes = str(filled.root / "notes.txt")
    assert printed["left"] == [[notes, "does not belong in a store"]]
    assert printed["free_bytes"] > 0
    assert f"left alone: {notes} " in command("gc")[1]


def test_gc_keeps_ten_runs_by_default(command: Command, filled: Store) -> None:
    """An invalid number is refused."""
    for seed in range(4, 13):
        filled_store.add_run(filled, seed)
    command("gc", "--apply")
    assert [record.seed for record in records.read_all(filled.runs)] == list(range(3, 13))
    for word in ("-1", "1.5", "many", "1e3", "²"):
        code, _, errors = command("gc", "--keep", word)
        assert code == 2
        assert f"--keep: {word!r} is refused; expected a whole number >= 0" in errors


def test_a_pinned_run_is_marked_and_kept(command: Command, filled: Store) -> None:
    """`runs` and `show` mark it, also in JSON; unpin undoes it."""
    name = first(filled)
    code, _, errors = command("pin", name)
    assert (code, errors) == (0, f"{name} is pinned: gc keeps it and what it was made from\n")
    assert "pinned" in command("runs")[1]
    assert "Pinned: gc keeps it" in command("show", name)[1]
    assert json.loads(command("show", name, "--json")[1])["pinned"] is True
    pinned = {item["run"]: item["pinned"] for item in json.loads(command("runs", "--json")[1])}
    assert [run for run, is_pinned in pinned.items() if is_pinned] == [name]
    command("gc", "--keep", "1", "--apply")
    assert [record.seed for record in records.read_all(filled.runs)] == [1, 3]
    assert command("verify")[0] == 0
    code, _, errors = command("unpin", name)
    assert (code, errors) == (0, f"{name} is not pinned\n")
    assert "pinned" not in command("runs")[1]


def test_pinning_an_unknown_run_is_refused(command: Command, filled: Store) -> None:
    """Nothing is created, not even for an empty store."""
    for verb in ("pin", "unpin"):
        code, _, errors = command(verb, "no-such-run")
        assert (code, "no run of that name" in errors) == (2, True)
    code, _, _ = command("pin", "--store", str(filled.root.with_name("none")))
    assert code == 2
    assert not filled.root.with_name("none").exists()


def test_after_gc_a_plan_for_a_kept_run_is_all_cached(command: Command, store: Path) -> None:
    """A kept run keeps everything that it was made from; once it is freed, every step must run."""
    shutil.rmtree(store / "promoted")  # a promoted run would be kept in any case
    filled_store.age(store)
    for keep, expected in (("1", ["cached"] * 6), ("0", ["run"] + ["depends"] * 5)):
        assert command("gc", "--keep", keep, "--apply")[0] == 0
        planned = json.loads(command("plan", *SHORT_WORDS, "--json")[1])
        assert [item["state"] for item in planned] == expected
        assert command("verify")[0] == 0


def test_gc_keeps_what_a_running_run_uses(
    finished: Finished, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old artifacts that no earlier run names survive gc while a run uses them as cached."""
    for name in ("runs", "promoted"):
        shutil.rmtree(store / name)
    filled_store.age(store)
    publish = folders.publish
    seen: list[set[str]] = []

    def after_gc(*arguments: Any, **more: Any) -> Any:
        seen.append({item.why for item in gc.collect(Store(store), 0).kept})
        return publish(*arguments, **more)

    monkeypatch.setattr(folders, "publish", after_gc)
    folder = train_and_explain(finished.config, store=store)
    assert seen == [{"in use"}]
    assert [step.state for step in records.read(folder).steps] == ["cached"] * 6
    assert verify.verify(Store(store)).broken == []
    shutil.rmtree(store / "promoted")
    filled_store.age(store)
    assert len(gc.collect(Store(store), 0).freed) >= 7
