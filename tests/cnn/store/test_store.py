"""The artifact store: artifacts are whole or absent, and damage is found."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cnn.errors import ArtifactError, ConfigError, StoreUnwritableError
from cnn.io import strict_json
from cnn.store import store as stores
from cnn.store.keys import Key
from cnn.store.manifests import Headline
from cnn.store.refs import Ref
from cnn.store.store import Found, Store
from tests.cnn.io.test_atomic import process

KEY = Key("model", {"step": "train_model", "settings": {"seed": 0}})
OTHER = Key("model", {"step": "train_model", "settings": {"seed": 1}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store whose folder does not exist yet."""
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
    """The manifest records what it is, what it was built from, and each of its files."""
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


def test_the_digest_covers_the_content_and_not_the_key(store: Store) -> None:
    """Two keys with the same result have one digest, whatever the time and device."""
    refs = [
        store.publish(KEY, (), writes("same"), {"kind": "cpu"}).ref,
        store.publish(OTHER, (), writes("same"), {"kind": "gpu"}).ref,
    ]
    third = store.publish(Key("model", {"seed": 2}), (), writes("else")).ref
    assert refs[0].digest == refs[1].digest != third.digest


def test_a_manifest_is_strict_json(store: Store) -> None:
    """NaN and infinity in a headline become null."""

    def produce(folder: Path) -> Headline:
        return {"loss": float("nan"), "accuracy": 0.5, "best": float("inf")}

    store.publish(KEY, (), produce)
    headline = strict_json.read(folder_of(store) / "manifest.json")["headline"]
    assert headline == {"loss": None, "accuracy": 0.5, "best": None}


def test_the_final_name_does_not_exist_until_the_artifact_is_complete(store: Store) -> None:
    """A reader never sees half an artifact."""
    seen: list[Any] = []

    def produce(folder: Path) -> Headline:
        writes("weights")(folder)
        seen.append((store.find(KEY), folder_of(store).exists(), list(store.manifests("model"))))
        return {}

    store.publish(KEY, (), produce)
    assert seen == [(Found(None), False, [])]


@pytest.mark.parametrize(
    ("error", "expected", "match"),
    [
        (ValueError("bad"), ValueError, "bad"),
        (FileNotFoundError(2, "no"), FileNotFoundError, "no"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
        (
            OSError(28, os.strerror(28)),
            StoreUnwritableError,
            "could not be written.*No space.*free",
        ),
    ],
)
def test_work_that_fails_leaves_nothing(
    store: Store, error: BaseException, expected: type[BaseException], match: str
) -> None:
    """The error passes through, except that a full disk becomes a message."""

    def produce(folder: Path) -> Headline:
        writes("half")(folder)
        raise error

    with pytest.raises(expected, match=match):
        store.publish(KEY, (), produce)
    assert store.find(KEY) == Found(None)
    assert names(store.root / "store") == []


def test_processes_that_publish_the_same_keys_agree_on_one_artifact_each(store: Store) -> None:
    """The second process to finish takes the existing artifact, although its own differs."""
    code = """
import sys
from pathlib import Path
from cnn.store.keys import Key
from cnn.store.store import Store
store, me = Store(Path(sys.argv[1])), sys.argv[2]
def produce(folder):
    (folder / "model.txt").write_text(me)
    return {}
print("ready", flush=True)
sys.stdin.readline()
for i in range(30):
    print(store.publish(Key("model", {"i": i}), (), produce).ref.digest)
"""
    with ExitStack() as stack:
        started = [stack.enter_context(process(code, store.root, i)) for i in range(3)]
        for publishing in started:
            publishing.stdin.write("go\n")
            publishing.stdin.flush()
        first, *others = [publishing.communicate(timeout=60)[0].split() for publishing in started]
    assert others == [first, first]
    found = [store.find(Key("model", {"i": i})).manifest for i in range(30)]
    assert [manifest.ref.digest for manifest in found if manifest] == first
    assert set(names(store.root / "store")) <= {"model", ".verified"}
    assert names(store.root / "quarantine") == []


def rewrite(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | changes))


def linked(path: Path) -> None:
    root = next(folder for folder in path.parents if folder.name == "artifacts")
    elsewhere = root.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def replaced_by_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


MANIFEST = "manifest.json is missing or damaged"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut off": (lambda f: (f / "model.txt").write_text("weigh"), "model.txt has 5 bytes, not 7"),
    "longer": (lambda f: (f / "model.txt").write_text("weights+"), "model.txt has 8 bytes"),
    "edited": (lambda f: (f / "table.txt").write_text("tabel"), "table.txt was changed"),
    "deleted": (lambda f: (f / "table.txt").unlink(), "table.txt is missing"),
    "a link to the same content": (lambda f: linked(f / "model.txt"), "model.txt is missing"),
    "a file added": (lambda f: (f / "figure.png").write_text("planted"), "figure.png"),
    "a link added": (lambda f: (f / "figure.png").symlink_to("/etc/hostname"), "figure.png"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), MANIFEST),
    "half a manifest": (lambda f: os.truncate(f / "manifest.json", 200), MANIFEST),
    "an empty manifest": (lambda f: (f / "manifest.json").write_text("{}"), MANIFEST),
    "a manifest that is a link": (lambda f: linked(f / "manifest.json"), MANIFEST),
    "a manifest that is a pipe": (lambda f: replaced_by_a_pipe(f / "manifest.json"), MANIFEST),
    "a folder that is a link": (linked, "its folder is a link, which is not followed"),
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
def test_a_damaged_artifact_is_quarantined(
    store: Store, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is never used, and what a link in it points to is not touched."""
    ref = store.publish(KEY, (), writes("weights")).ref
    change, expected = DAMAGE[damage]
    change(folder_of(store))
    found = store.find(KEY)
    assert found.manifest is None
    assert expected in found.problem
    with pytest.raises(ArtifactError, match=expected):
        store.open(ref)
    for _ in range(2):  # another run may have found the same damage
        store.quarantine(KEY, found.problem)
    assert found.problem in caplog.text
    assert store.find(KEY) == Found(None)
    assert len(names(store.root / "quarantine")) == 1
    assert store.publish(KEY, (), writes("weights")).ref == ref
    assert store.find(KEY).manifest is not None
    outside = store.root.parent / "elsewhere"
    assert not outside.is_dir() or names(outside) == ["manifest.json", "model.txt", "table.txt"]


def test_a_file_that_cannot_be_read_is_a_problem_and_no_crash(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector under an artifact: the message names the file, and the step can run again."""
    store.publish(KEY, (), writes("weights"))
    path_open = Path.open

    def bad_sector(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "model.txt":
            raise OSError(5, os.strerror(5), str(path))
        return path_open(path, *args, **options)

    monkeypatch.setattr(Path, "open", bad_sector)
    assert store.find(KEY).problem == "model.txt cannot be read (Input/output error)"


def test_an_artifact_that_was_rebuilt_meanwhile_is_not_quarantined(store: Store) -> None:
    """A problem found earlier says nothing about the artifact that is there now."""
    manifest = store.publish(KEY, (), writes("weights"))
    store.quarantine(KEY, "model.txt was changed")
    assert store.open(manifest.ref) == folder_of(store)
    assert names(store.root / "quarantine") == []


def test_a_ref_to_different_content_is_refused(store: Store) -> None:
    """An artifact that was rebuilt with another result is not the one that the ref names."""
    ref = store.publish(KEY, (), writes("weights")).ref
    other = ref.model_copy(update={"digest": "c" * 64})
    with pytest.raises(
        ArtifactError, match=f"is {ref.digest[:12]}, expected cccccccccccc; run again"
    ):
        store.open(other)


def test_a_missing_artifact_is_named_with_the_remedy(store: Store) -> None:
    """Somebody removed its folder."""
    ref = store.publish(KEY, (), writes("weights")).ref
    shutil.rmtree(folder_of(store))
    with pytest.raises(ArtifactError, match=r"manifest\.json is missing or damaged"):
        store.open(ref)


@pytest.mark.parametrize(
    ("second", "replace", "kept", "n_quarantined"),
    [
        ("first", False, "first", 0),
        ("second", False, "first", 0),
        ("first", True, "first", 0),
        ("second", True, "second", 1),
    ],
)
def test_an_existing_artifact_is_kept_unless_it_is_to_be_replaced(
    store: Store, second: str, replace: bool, kept: str, n_quarantined: int
) -> None:
    """Publishing again changes nothing; a refresh with another result quarantines the old one."""
    earlier = store.publish(KEY, (), writes("first"))
    later = store.publish(KEY, (), writes(second), replace=replace)
    assert (folder_of(store) / "model.txt").read_text() == kept
    assert store.find(KEY).manifest == later
    assert (later == earlier) == (kept == second == "first" or not replace)
    assert len(names(store.root / "quarantine")) == n_quarantined
    assert names(store.root / "store") == ["model"]


def test_publishing_over_a_damaged_artifact_quarantines_it(store: Store) -> None:
    """The damaged one is never returned in place of the new one."""
    store.publish(KEY, (), writes("weights"))
    (folder_of(store) / "model.txt").write_text("changed")
    manifest = store.publish(KEY, (), writes("weights"))
    assert store.find(KEY).manifest == manifest
    assert len(names(store.root / "quarantine")) == 1


def test_unreadable_manifests_are_skipped(store: Store) -> None:
    """Damage to an older artifact does not keep a plan from giving reasons."""
    kept = store.publish(KEY, (), writes("a"))
    store.publish(OTHER, (), writes("b"))
    (folder_of(store, OTHER) / "manifest.json").write_text("")
    (store.root / "store" / "model" / "notes.txt").touch()
    assert list(store.manifests("model")) == [kept]
    assert list(store.manifests("report")) == []


@pytest.mark.parametrize("below", ["", "/below", "/below/and/below"])
def test_a_store_that_is_not_writable_is_refused(tmp_path: Path, below: str) -> None:
    """The message names the folder and both ways to choose another; the exit code is 2."""
    (tmp_path / "file").touch()
    root = Path(f"{tmp_path / 'file'}{below}")
    rule = f"^store {root}: cannot be written .*--store or FILTERSCOPE_STORE$"
    with pytest.raises(StoreUnwritableError, match=rule) as caught:
        Store(root).ensure_writable()
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, ConfigError)


def test_checking_a_store_creates_it_and_leaves_it_empty(store: Store) -> None:
    """The check leaves no file; constructing a store creates no folder."""
    assert not store.root.exists()
    store.ensure_writable()
    assert names(store.root) == []


def test_a_file_in_place_of_a_folder_ends_in_a_message(store: Store) -> None:
    """Publishing raises StoreUnwritableError, not NotADirectoryError."""
    store.root.mkdir()
    (store.root / "store").touch()
    with pytest.raises(StoreUnwritableError, match="could not be written"):
        store.publish(KEY, (), writes("weights"))


@pytest.mark.parametrize(
    ("value", "expected"), [(None, "artifacts"), ("", "artifacts"), ("/x", "/x")]
)
def test_the_default_root_is_filterscope_store_or_artifacts(
    monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str
) -> None:
    """An empty variable counts as unset."""
    monkeypatch.delenv("FILTERSCOPE_STORE", raising=False)
    if value is not None:
        monkeypatch.setenv("FILTERSCOPE_STORE", value)
    assert stores.default_root() == Path(expected)


def test_a_relative_root_does_not_follow_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is resolved when the store is constructed."""
    monkeypatch.chdir(tmp_path)
    store = Store(Path("artifacts"))
    monkeypatch.chdir("/")
    assert store.root == tmp_path / "artifacts"
