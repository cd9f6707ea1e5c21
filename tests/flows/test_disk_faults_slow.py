"""Full, limited and read-only disks: the tests mount a small file system."""

import os
import resource
import subprocess
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
from tests import commands
from tests.cnn.commands import filled_store
from tests.commands import COMMAND
from tests.flows.conftest import SHORT, SHORT_WORDS, Finished

pytestmark = pytest.mark.slow

WORDS = ("run", *SHORT_WORDS)
BLOCK = 4096
KINDS: tuple[Kind, ...] = ("dataset", "model", "evaluation", "filters", "patches", "report")


@dataclass(frozen=True)
class Disk:
    """A separate file system in memory, whose free space can be set."""

    path: Path

    def leave(self, n_bytes: int) -> None:
        """Leave so many bytes free, rounded to blocks."""
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
    """A machine with a Prefect server, so that only the store's disk can fail."""
    return commands.environment(tmp_path, PREFECT_API_URL=str(get_current_settings().api.url))


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
    """The last line says what failed, where, and how much is free; there is no traceback."""
    message = done.stderr.splitlines()[-1] if done.stderr else ""
    assert message.startswith(f"error: {what}"), done.stderr
    assert f" could not be written to {where}" in message
    assert "bytes are free there" in message
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr


def assert_whole(store: Path) -> None:
    """Nothing is broken and no temporary file is left."""
    assert verify.verify(Store(store)).broken == []
    assert [str(path) for path in store.rglob(".*.part")] == []


def assert_completes(done: Done, store: Path, finished: Finished) -> None:
    """The run completed with the same artifacts as an undisturbed run."""
    assert done.returncode == 0, done.stderr
    record, _ = records.find(Store(store).runs, "latest")
    assert [step.ref for step in record.steps] == [step.ref for step in finished.record.steps]
    assert_whole(store)


def prefilled(disk: Disk, finished: Finished, n_kinds: int) -> Path:
    """Return a store with the artifacts of the first steps, each verified once."""
    store = disk.path / "artifacts"
    (store / "store").mkdir(parents=True)
    (store / "runs").mkdir()
    for kind in KINDS[:n_kinds]:
        ref = filled_store.ref_of(finished.record, kind)
        copytree(
            filled_store.artifact_path(Store(finished.store), ref), store / "store" / kind / ref.key
        )
    time.sleep(2.1)  # until digests are cached, which takes space too
    planning.plan(Store(store), config.validate(SHORT))
    return store


def blocks(folder: Path) -> int:
    """Return the disk space of a folder's files, in bytes."""
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
        # The list of artifacts in use takes one block, the index two.
        lambda finished: [blocks(finished.folder) + 2 * BLOCK],
        "the run's folder",
        "runs",
    ),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_full_disk_ends_a_run_with_a_message_and_the_next_run_completes(
    finished: Finished, environment: dict[str, str], disk: Disk, phase: str
) -> None:
    """Whichever file fails, earlier artifacts are unchanged and no partial files are left."""
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


def test_a_file_size_limit_ends_a_run_with_a_message(
    finished: Finished, environment: dict[str, str], tmp_path: Path
) -> None:
    """It stops NumPy arrays and Keras archives; without it the next run completes."""
    store = tmp_path / "artifacts"
    for n_bytes, what in ((1 << 20, "dataset"), (2 << 20, "model")):
        done = command(environment, store, preexec_fn=limited(n_bytes))
        assert_refused(done, what, store)
        assert_whole(store)
    assert_completes(command(environment, store), store, finished)


def test_a_read_only_store_can_be_read(
    finished: Finished, environment: dict[str, str], disk: Disk
) -> None:
    """Commands that only read work; commands that write are refused at once."""
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
        done = command(environment, store, words=words)
        assert (done.returncode, done.stderr) == (0, "")
    for words, what in ((("gc", "--apply"), "gc's changes"), (("pin",), "the pin")):
        assert_refused(command(environment, store, words=words), what, store)
    assert filled_store.contents(store) == before


def test_only_the_store_and_prefects_home_are_written(
    digits: Dataset, disk: Disk, tmp_path: Path
) -> None:
    """The run completes with home, current folder and data on a read-only disk."""
    data = disk.path / "data"
    data.mkdir()
    for part, split in (("train", "train"), ("t10k", "test")):
        images = digits.splits[split].images[..., 0]
        idx.write(data / f"{part}-images-idx3-ubyte", images)
        idx.write(data / f"{part}-labels-idx1-ubyte", digits.splits[split].labels.astype("uint8"))
    disk.read_only()
    environment = commands.environment(tmp_path, HOME=str(disk.path))
    words = ("run", "--data.source", "folder", "--data.path", str(data), "--train.steps", "20")
    done = command(environment, tmp_path / "artifacts", words=words, cwd=disk.path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert_whole(tmp_path / "artifacts")


@pytest.mark.parametrize("fault", ["read-only home", "read-only", "full", "limited"])
def test_a_home_that_prefect_cannot_write_is_refused_at_once(
    disk: Disk, tmp_path: Path, fault: str
) -> None:
    """The temporary server is not started: it would try for minutes and print tracebacks."""
    home, how = disk.path / "prefect", {}
    environment = commands.environment(tmp_path, PREFECT_HOME=str(home))
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
