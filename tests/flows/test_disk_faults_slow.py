"""Disks that are full, limited or read-only, for real: a small file system is mounted for it."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import pytest
from prefect.settings import get_current_settings

from cnn.commands import verify
from cnn.config import run as config
from cnn.data import idx
from cnn.data.dataset import Dataset
from cnn.pipeline import planning
from cnn.runs import records
from cnn.store.refs import Kind
from cnn.store.store import Store
from tests.cnn.commands import filled_store
from tests.flows.conftest import SHORT, Finished

pytestmark = pytest.mark.slow

COMMAND = Path(sys.executable).with_name("filterscope")
WORDS = ("run", "--data.source", "digits", "--train.steps", "60", "--train.log_every", "20")
BLOCK = 4096
KINDS: tuple[Kind, ...] = ("dataset", "model", "evaluation", "filters", "patches", "report")


@dataclass(frozen=True)
class Disk:
    """A file system of its own, in memory, that can be made to have any room."""

    path: Path

    def leave(self, n_bytes: int) -> None:
        """Let so many bytes be free, rounded to blocks."""
        found = os.statvfs(self.path)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        self.remount(f"size={max(used + n_bytes, BLOCK)}")

    def read_only(self) -> None:
        self.remount("ro")

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 128 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", path]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def environment(prefect_server: None, tmp_path: Path) -> dict[str, str]:
    """A machine with a Prefect server, so that the store's disk alone is at fault."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": str(get_current_settings().api.url),
    }


Done = subprocess.CompletedProcess[str]


def command(
    environment: dict[str, str],
    store: Path,
    *more: str,
    words: tuple[str, ...] = WORDS,
    **how: object,
) -> Done:
    return subprocess.run(
        [COMMAND, *words, *more, "--store", store],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **how,  # type: ignore[call-overload]
    )


def assert_refused(done: Done, what: str, where: Path) -> None:
    """The last line says what failed, where, and what is free there; there is no traceback."""
    message = done.stderr.splitlines()[-1] if done.stderr else ""
    assert message.startswith(f"error: {what}"), done.stderr
    assert f" could not be written to {where}" in message
    assert "bytes are free there" in message
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr


def assert_whole(store: Path) -> None:
    """Nothing is broken and nothing temporary is left."""
    assert verify.verify(Store(store)).broken == []
    assert [str(path) for path in store.rglob(".*.part")] == []


def assert_completes(done: Done, store: Path, finished: Finished) -> None:
    """The run ended well, with what the undisturbed run made."""
    assert done.returncode == 0, done.stderr
    record, _ = records.find(Store(store).runs, "latest")
    assert [step.ref for step in record.steps] == [step.ref for step in finished.record.steps]
    assert_whole(store)


def prefilled(disk: Disk, finished: Finished, n_kinds: int) -> Path:
    """Return a store that has the artifacts of the first steps, each verified once."""
    store = disk.path / "artifacts"
    (store / "store").mkdir(parents=True)
    (store / "runs").mkdir()
    for kind in KINDS[:n_kinds]:
        ref = filled_store.ref_of(finished.record, kind)
        copytree(
            filled_store.artifact_path(Store(finished.store), ref), store / "store" / kind / ref.key
        )
    time.sleep(2.1)  # until digests may be remembered, which takes room too
    planning.plan(Store(store), config.validate(SHORT))
    return store


def blocks(folder: Path) -> int:
    """Return the room that a folder's files take, in bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // BLOCK) * BLOCK for size in sizes)


PHASES: dict[str, tuple[int, Callable[[Finished], list[int]], str, str]] = {
    "the first byte": (0, lambda finished: [0], "", ""),
    "the data set": (0, lambda finished: [100_000, 1_000_000], "dataset", ""),
    "the model": (1, lambda finished: [3_000_000], "model", ""),
    "three steps side by side": (2, lambda finished: [4 * BLOCK], "", ""),
    "the report": (5, lambda finished: [1_500_000], "report", ""),
    "the run's folder": (6, lambda finished: [3_000_000], "the run's folder", "runs"),
    "the index": (
        6,
        # The list of what the run uses takes a block, the index two.
        lambda finished: [blocks(finished.folder) + 2 * BLOCK],
        "the run's folder",
        "runs",
    ),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_full_disk_ends_a_run_with_a_message_and_the_next_run_completes(
    finished: Finished, environment: dict[str, str], disk: Disk, phase: str
) -> None:
    """Whatever was to be written: earlier artifacts stay as they were, nothing is half there."""
    n_kinds, rooms, what, place = PHASES[phase]
    store = prefilled(disk, finished, n_kinds)
    before = filled_store.contents(store / "store")
    for room in rooms(finished):
        disk.leave(room)
        assert_refused(command(environment, store), what, store / place)
        assert_whole(store)
        after = filled_store.contents(store / "store")
        assert {name: after[name] for name in before} == before
        assert list(records.read_all(store / "runs")) == []
    disk.leave(96_000_000)
    assert_completes(command(environment, store), store, finished)


def limited(n_bytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def test_a_limit_on_the_size_of_files_is_said(
    finished: Finished, environment: dict[str, str], tmp_path: Path
) -> None:
    """NumPy's arrays and Keras's archive alike; without the limit the next run completes."""
    store = tmp_path / "artifacts"
    for n_bytes, what in ((1 << 20, "dataset"), (2 << 20, "model")):
        done = command(environment, store, preexec_fn=limited(n_bytes))
        assert_refused(done, what, store)
        assert_whole(store)
    assert_completes(command(environment, store), store, finished)


def test_a_store_that_is_read_only_is_read_but_not_written(
    finished: Finished, environment: dict[str, str], disk: Disk
) -> None:
    """A run is refused at once; plan, runs, show, verify and what gc would free are told."""
    store = disk.path / "artifacts"
    copytree(finished.store, store)
    disk.read_only()
    before = filled_store.contents(store)
    done = command(environment, store, "--train.seed", "1")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        f"error: store {store}: cannot be written (Read-only file system); "
        "choose another folder with --store or FILTERSCOPE_STORE",
    )
    for words in (("plan", *WORDS[1:]), ("runs",), ("show",), ("verify",), ("gc",)):
        told = command(environment, store, words=words)
        assert (told.returncode, told.stderr) == (0, "")
    for words, what in ((("gc", "--apply"), "gc's changes"), (("pin",), "the pin")):
        assert_refused(command(environment, store, words=words), what, store)
    assert filled_store.contents(store) == before


def test_only_the_store_and_prefects_home_are_written(
    digits: Dataset, disk: Disk, tmp_path: Path
) -> None:
    """Home, current folder and data are on a disk that is read-only, and the run completes."""
    data = disk.path / "data"
    data.mkdir()
    for part, split in (("train", "train"), ("t10k", "test")):
        images = digits.splits[split].images[..., 0]
        idx.write(data / f"{part}-images-idx3-ubyte", images)
        idx.write(data / f"{part}-labels-idx1-ubyte", digits.splits[split].labels.astype("uint8"))
    disk.read_only()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(disk.path),
        "PREFECT_HOME": str(tmp_path / "prefect"),
    }
    words = ("run", "--data.source", "folder", "--data.path", str(data), "--train.steps", "20")
    done = command(environment, tmp_path / "artifacts", words=words, cwd=disk.path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert_whole(tmp_path / "artifacts")


@pytest.mark.parametrize("fault", ["read-only home", "read-only", "full", "limited"])
def test_a_home_in_which_prefect_cannot_keep_its_records_is_said_at_once(
    disk: Disk, tmp_path: Path, fault: str
) -> None:
    """Before the temporary server starts, which would try for minutes and print tracebacks."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    home, how = disk.path / "prefect", {}
    environment["PREFECT_HOME"] = str(home)
    match fault:
        case "read-only home":
            del environment["PREFECT_HOME"]
            environment["HOME"], home = str(disk.path), disk.path / ".prefect"
            disk.read_only()
        case "read-only":
            disk.read_only()
        case "full":
            disk.leave(1 << 20)
        case "limited":
            how = {"preexec_fn": limited(1 << 20)}
    done = command(environment, tmp_path / "artifacts", **how)
    assert_refused(done, "Prefect's records", home)
    assert "Set PREFECT_HOME to another folder, or PREFECT_API_URL to a server" in done.stderr
    assert list((tmp_path / "artifacts").rglob("*")) == []
