"""The artifact store: whole artifacts or none, damage found, nothing written twice."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cnn.errors import ArtifactError, ConfigError, StoreUnwritableError
from cnn.store import store as stores
from cnn.store.keys import Key
from cnn.store.manifests import Headline
from cnn.store.refs import Ref
from cnn.store.store import Found, Store

KEY = Key("model", {"step": "train_model", "settings": {"seed": 0}})
OTHER = Key("model", {"step": "train_model", "settings": {"seed": 1}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store that does not exist yet."""
    return Store(tmp_path / "artifacts")


def writes(text: str) -> Callable[[Path], Headline]:
    def produce(folder: Path) -> Headline:
        (folder / "model.txt").write_text(text)
        (folder / "table.txt").write_text("table")
        return {"n": len(text)}

    return produce


def folder_of(store: Store, key: Key = KEY) -> Path:
    return store.root / "store" / key.kind / key.digest


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_what_is_published_is_found_and_opened(store: Store) -> None:
    """The manifest tells what it is, what it was made from, and every file of it."""
    assert store.find(KEY) == Found(None)
    data = Ref(kind="dataset", key="a" * 64, digest="b" * 64)
    manifest = store.publish(KEY, (data,), writes("weights"), {"kind": "cpu"})
    assert store.find(KEY) == Found(manifest)
    assert store.manifest(manifest.ref) == manifest
    folder = store.open(manifest.ref)
    assert folder == folder_of(store)
    assert (folder / "model.txt").read_text() == "weights"
    assert (manifest.kind, manifest.key, manifest.reads) == ("model", KEY.digest, (data,))
    assert manifest.components == KEY.components
    assert manifest.headline == {"n": 7}
    assert manifest.environment["device"] == {"kind": "cpu"}
    assert [(file.path, file.bytes) for file in manifest.files] == [
        ("model.txt", 7),
        ("table.txt", 5),
    ]
    assert abs(datetime.now(UTC) - manifest.created) < timedelta(minutes=1)


def test_the_digest_is_of_what_was_made_not_of_what_was_asked(store: Store) -> None:
    """Two keys with the same result have one digest; time and machine are not in it."""
    refs = [
        store.publish(KEY, (), writes("same"), {"kind": "cpu"}).ref,
        store.publish(OTHER, (), writes("same"), {"kind": "gpu"}).ref,
    ]
    third = store.publish(Key("model", {"seed": 2}), (), writes("else")).ref
    assert refs[0].digest == refs[1].digest != third.digest


def test_a_manifest_is_json_that_every_reader_takes(store: Store) -> None:
    """NaN is no JSON: a headline without a number is null."""

    def produce(folder: Path) -> Headline:
        return {"loss": float("nan"), "accuracy": 0.5, "best": float("inf")}

    store.publish(KEY, (), produce)
    text = (folder_of(store) / "manifest.json").read_text()

    def refuse(token: str) -> None:
        raise AssertionError(token)

    headline = json.loads(text, parse_constant=refuse)["headline"]
    assert headline == {"loss": None, "accuracy": 0.5, "best": None}


def test_nothing_stands_under_the_final_name_while_it_is_made(store: Store) -> None:
    """A reader never sees half of an artifact."""
    seen: list[Any] = []

    def produce(folder: Path) -> Headline:
        writes("weights")(folder)
        seen.append((store.find(KEY), folder_of(store).exists(), list(store.manifests("model"))))
        return {}

    store.publish(KEY, (), produce)
    assert seen == [(Found(None), False, [])]


@pytest.mark.parametrize(
    "error", [ValueError("bad"), FileNotFoundError(2, "no"), KeyboardInterrupt()]
)
def test_work_that_fails_leaves_nothing(store: Store, error: BaseException) -> None:
    """The error goes on as it is, and neither an artifact nor a temporary folder stays."""

    def produce(folder: Path) -> Headline:
        writes("half")(folder)
        raise error

    with pytest.raises(type(error)):
        store.publish(KEY, (), produce)
    assert store.find(KEY) == Found(None)
    assert names(store.root / "store") == []


def test_a_full_disk_is_said_as_such(store: Store) -> None:
    """The message names the store and what is free there; nothing is left."""

    def produce(folder: Path) -> Headline:
        raise OSError(28, os.strerror(28))

    with pytest.raises(StoreUnwritableError, match=r"could not be written.*No space left.*free"):
        store.publish(KEY, (), produce)
    assert names(store.root / "store") == []


def test_a_killed_process_leaves_no_artifact(store: Store) -> None:
    """SIGKILL in the middle of the work is as if it had not begun."""
    code = f"""
import os, signal
from pathlib import Path
from cnn.store.keys import Key
from cnn.store.store import Store
def produce(folder):
    (folder / "model.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
Store(Path({str(store.root)!r})).publish(Key("model", {KEY.components!r}), (), produce)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert store.find(KEY) == Found(None)
    assert list(store.manifests("model")) == []
    assert store.publish(KEY, (), writes("whole")).ref == store.find(KEY).manifest.ref


def test_processes_that_publish_one_key_at_once_agree_on_one_artifact(store: Store) -> None:
    """Whoever comes second takes what is there: one valid artifact, one digest for all."""
    code = f"""
import sys, time
from pathlib import Path
from cnn.store.keys import Key
from cnn.store.store import Store
store, me = Store(Path({str(store.root)!r})), sys.argv[1]
def produce(folder):
    (folder / "model.txt").write_text(me)
    return {{}}
Path({str(store.root)!r} + "-" + me).touch()
while not Path({str(store.root)!r} + "-go").exists():
    time.sleep(0.001)
for i in range(30):
    print(store.publish(Key("model", {{"i": i}}), (), produce).ref.digest)
"""
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(i)], stdout=subprocess.PIPE, text=True)
        for i in range(3)
    ]
    waiting = [Path(f"{store.root}-{i}") for i in range(3)]
    deadline = time.monotonic() + 30
    while not all(path.exists() for path in waiting):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    Path(f"{store.root}-go").touch()
    printed = [process.communicate(timeout=60)[0].split() for process in started]
    assert printed[0] == printed[1] == printed[2]
    found = [store.find(Key("model", {"i": i})).manifest for i in range(30)]
    assert [manifest.ref.digest for manifest in found if manifest] == printed[0]
    assert set(names(store.root / "store")) <= {"model", ".verified"}
    assert names(store.root / "quarantine") == []


def rewrite(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | changes))


def linked(path: Path) -> None:
    elsewhere = path.parents[3] / "elsewhere.txt"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


MANIFEST = "manifest.json is missing or damaged"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut off": (lambda f: (f / "model.txt").write_text("weigh"), "model.txt has 5 bytes, not 7"),
    "empty": (lambda f: (f / "model.txt").write_text(""), "model.txt has 0 bytes, not 7"),
    "longer": (lambda f: (f / "model.txt").write_text("weights+"), "model.txt has 8 bytes"),
    "edited": (lambda f: (f / "table.txt").write_text("tabel"), "table.txt was changed"),
    "deleted": (lambda f: (f / "table.txt").unlink(), "table.txt is missing"),
    "a link to the same": (lambda f: linked(f / "model.txt"), "model.txt is missing"),
    "a file added": (lambda f: (f / "figure.png").write_text("planted"), "figure.png"),
    "a link added": (lambda f: (f / "figure.png").symlink_to("/etc/hostname"), "figure.png"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), MANIFEST),
    "half a manifest": (lambda f: os.truncate(f / "manifest.json", 200), MANIFEST),
    "an empty manifest": (lambda f: (f / "manifest.json").write_text("{}"), MANIFEST),
    "another kind": (lambda f: rewrite(f / "manifest.json", kind="report"), "another artifact"),
    "another key": (lambda f: rewrite(f / "manifest.json", key=OTHER.digest), "another artifact"),
    "a path outside": (
        lambda f: rewrite(
            f / "manifest.json",
            files=[{"path": "../x", "bytes": 1, "sha256": "", "content": ""}],
        ),
        MANIFEST,
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_set_aside(
    store: Store, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever became of its files, an artifact is used as it was made or not at all."""
    ref = store.publish(KEY, (), writes("weights")).ref
    change, wanted = DAMAGE[damage]
    change(folder_of(store))
    found = store.find(KEY)
    assert found.manifest is None
    assert wanted in found.problem
    with pytest.raises(ArtifactError, match=wanted):
        store.open(ref)
    store.quarantine(KEY, found.problem)
    assert found.problem in caplog.text
    assert store.find(KEY) == Found(None)
    assert len(names(store.root / "quarantine")) == 1
    assert store.publish(KEY, (), writes("weights")).ref == ref
    assert store.find(KEY).manifest is not None


def test_setting_aside_what_another_process_set_aside_is_no_error(store: Store) -> None:
    """Two runs may find the same damage at once."""
    store.publish(KEY, (), writes("weights"))
    (folder_of(store) / "model.txt").write_text("changed")
    for _ in range(2):
        store.quarantine(KEY, "model.txt was changed")
    assert len(names(store.root / "quarantine")) == 1


def test_what_another_process_made_anew_meanwhile_is_not_set_aside(store: Store) -> None:
    """Damage that was found a while ago says nothing about the artifact that is there now."""
    made = store.publish(KEY, (), writes("weights"))
    (folder_of(store) / "model.txt").write_text("changed")
    seen = store.find(KEY)
    store.quarantine(KEY, seen.problem)
    store.publish(KEY, (), writes("weights"))
    store.quarantine(KEY, seen.problem)
    assert store.open(made.ref) == folder_of(store)
    assert len(names(store.root / "quarantine")) == 1


def test_a_missing_artifact_is_said_with_the_remedy(store: Store) -> None:
    """A ref whose folder is gone is an error that a person can act on."""
    with pytest.raises(ArtifactError, match=r"manifest\.json is missing"):
        store.open(Ref(kind="model", key="a" * 64, digest="b" * 64))


def test_a_ref_to_other_content_is_refused(store: Store) -> None:
    """An artifact made anew with another result is not what the ref named."""
    ref = store.publish(KEY, (), writes("weights")).ref
    old = ref.model_copy(update={"digest": "c" * 64})
    with pytest.raises(ArtifactError, match=f"its digest is {ref.digest[:12]}, not cccccccccccc"):
        store.open(old)


@pytest.mark.parametrize(
    ("second", "replace", "kept", "n_set_aside"),
    [
        ("first", False, "first", 0),
        ("second", False, "first", 0),
        ("first", True, "first", 0),
        ("second", True, "second", 1),
    ],
)
def test_what_is_there_is_kept_unless_it_is_to_be_replaced(
    store: Store, second: str, replace: bool, kept: str, n_set_aside: int
) -> None:
    """Publishing again changes nothing; a refresh with another result sets the old one aside."""
    earlier = store.publish(KEY, (), writes("first"))
    later = store.publish(KEY, (), writes(second), replace=replace)
    assert (folder_of(store) / "model.txt").read_text() == kept
    assert store.find(KEY).manifest == later
    assert (later == earlier) == (kept == second == "first" or not replace)
    assert len(names(store.root / "quarantine")) == n_set_aside
    assert names(store.root / "store") == ["model"]


def test_publishing_over_a_damaged_artifact_sets_it_aside(store: Store) -> None:
    """What does not verify is never handed out as what was just made."""
    store.publish(KEY, (), writes("weights"))
    (folder_of(store) / "model.txt").write_text("changed")
    manifest = store.publish(KEY, (), writes("weights"))
    assert store.find(KEY).manifest == manifest
    assert len(names(store.root / "quarantine")) == 1


def test_unreadable_manifests_are_passed_over(store: Store) -> None:
    """Explaining why a step runs does not fail on an older artifact's damage."""
    kept = store.publish(KEY, (), writes("a"))
    store.publish(OTHER, (), writes("b"))
    (folder_of(store, OTHER) / "manifest.json").write_text("")
    (store.root / "store" / "model" / "notes.txt").touch()
    assert list(store.manifests("model")) == [kept]
    assert list(store.manifests("report")) == []


@pytest.mark.parametrize("place", ["", "/below", "/below/and/below"])
def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path, place: str) -> None:
    """The message names the folder and both ways to choose another; the command ends with 2."""
    (tmp_path / "file").touch()
    root = Path(f"{tmp_path / 'file'}{place}")
    with pytest.raises(StoreUnwritableError) as caught:
        Store(root).ensure_writable()
    message = str(caught.value)
    assert message.startswith(f"store {root}: cannot be written")
    assert "--store" in message
    assert "FILTERSCOPE_STORE" in message
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, ConfigError)


def test_a_writable_store_is_created_and_left_empty(store: Store) -> None:
    """Trying to write leaves no file; naming a store alone creates no folder."""
    assert not store.root.exists()
    store.ensure_writable()
    assert names(store.root) == []


def test_an_artifact_that_cannot_be_put_in_place_is_an_error(store: Store) -> None:
    """A file where a folder belongs ends as a message, not a traceback."""
    store.root.mkdir()
    (store.root / "store").touch()
    with pytest.raises(StoreUnwritableError, match="could not be written"):
        store.publish(KEY, (), writes("weights"))


@pytest.mark.parametrize(
    ("value", "wanted"), [(None, "artifacts"), ("", "artifacts"), ("/x", "/x")]
)
def test_the_root_is_the_environments_or_artifacts(
    monkeypatch: pytest.MonkeyPatch, value: str | None, wanted: str
) -> None:
    """FILTERSCOPE_STORE names the store where the command does not."""
    monkeypatch.delenv("FILTERSCOPE_STORE", raising=False)
    if value is not None:
        monkeypatch.setenv("FILTERSCOPE_STORE", value)
    assert stores.default_root() == Path(wanted)


def test_a_store_stays_where_it_was_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative root is that of the folder in which it was named."""
    monkeypatch.chdir(tmp_path)
    store = Store(Path("artifacts"))
    monkeypatch.chdir("/")
    assert store.root == tmp_path / "artifacts"
