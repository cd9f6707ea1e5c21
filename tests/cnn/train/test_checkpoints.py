"""Checkpoint files: complete or refused, the newest that opens, and the time they may cost."""

import io
import json
import os
import pickle
import resource
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnn.errors import ArtifactError
from cnn.io import atomic
from cnn.train import checkpoints
from cnn.train.device import Device
from cnn.train.fit import LogPoint, TrainingState

CPU = Device("cpu", "some processor", 4)
HISTORY = [
    LogPoint(20, 1920, "train", 0.1 + 0.2, 0.5, 1e-4),
    LogPoint(20, 1920, "validation", 1e-300, 1.0, 3.3e-5),
    LogPoint(40, 3840, "train", None, None, 0.0, "diverged"),
]


def state_at(step: int, n: int = 40) -> TrainingState:
    rng = np.random.default_rng(step)
    shapes = ((3, 3, 1, 2), (n,), (), (2, 0))
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes for _ in range(3)]
    return TrainingState(step, arrays, (1 / 3, 17, 5), HISTORY)


def same(one: TrainingState, other: TrainingState) -> bool:
    return (
        (one.step, one.sums, one.history) == (other.step, other.sums, other.history)
        and [a.tobytes() for a in one.arrays] == [b.tobytes() for b in other.arrays]
        and [(a.dtype, a.shape) for a in one.arrays] == [(b.dtype, b.shape) for b in other.arrays]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "key"


@pytest.fixture
def path(folder: Path) -> Path:
    """A checkpoint of step 25."""
    return checkpoints.write(folder, state_at(25), CPU)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_damaged(path: Path) -> None:
    with pytest.raises(ArtifactError, match="incomplete or damaged"):
        checkpoints.read(path)


floats = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(floats, st.lists(floats | st.none(), min_size=3, max_size=3), st.integers(0, 2**60))
def test_every_number_survives_the_file(
    folder: Path, loss: float, figures: list[float | None], n: int
) -> None:
    """Arrays, sums and history come back to the bit, with the device that computed them."""
    point = LogPoint(n, n, "train", figures[0], figures[1], figures[2] or 0.0)
    state = replace(state_at(1), sums=(loss, n, n), history=[point])
    shutil.rmtree(folder, ignore_errors=True)
    path = checkpoints.write(folder, state, CPU)
    found = checkpoints.read(path)
    assert same(found.state, state)
    assert repr(found.state.sums) == repr(state.sums)
    assert (found.path, found.device) == (path, CPU)
    assert names(folder) == ["step-000000001-cpu-4.npz"]


def test_the_newest_that_opens_is_returned(folder: Path) -> None:
    """A damaged checkpoint is named and deleted, and the one before it is used."""
    paths = [checkpoints.write(folder, state_at(step), CPU) for step in (5, 100)]
    found, skipped = checkpoints.newest(folder)
    assert found is not None
    assert (found.state.step, skipped) == (100, [])
    os.truncate(paths[1], 500)
    found, skipped = checkpoints.newest(folder)
    assert found is not None
    assert same(found.state, state_at(5))
    (reason,) = skipped
    assert reason.startswith(f"checkpoint {paths[1]}: incomplete or damaged (")
    assert reason.endswith("; skipped")
    assert names(folder) == [paths[0].name]


def test_without_a_usable_checkpoint_there_is_none(folder: Path) -> None:
    """A folder that is missing, empty or full of damaged files is not an error."""
    assert checkpoints.newest(folder) == (None, [])
    folder.mkdir(parents=True)
    assert checkpoints.newest(folder) == (None, [])
    for step in (1, 2):
        (folder / f"step-{step:09d}-cpu-4.npz").write_bytes(b"")
    found, skipped = checkpoints.newest(folder)
    assert found is None
    assert len(skipped) == 2
    assert names(folder) == []


def test_the_newest_two_are_kept_for_each_number_of_threads(folder: Path) -> None:
    """A training that starts over with other threads keeps its own, however early they are."""
    for step in (4975, 5000, 5025):
        checkpoints.write(folder, state_at(step), CPU)
    for step in (25, 50, 75):
        checkpoints.write(folder, state_at(step), replace(CPU, threads=1))
    kept = [
        "step-000000050-cpu-1.npz",
        "step-000000075-cpu-1.npz",
        "step-000005000-cpu-4.npz",
        "step-000005025-cpu-4.npz",
    ]
    assert names(folder) == kept
    found, skipped = checkpoints.newest(
        folder, lambda found: "" if found.device.threads == 1 else f"no {found.state.step}"
    )
    assert found is not None
    assert same(found.state, state_at(75))
    assert skipped == ["no 5025", "no 5000"]
    assert names(folder) == kept


def test_foreign_files_are_left_alone(folder: Path, tmp_path: Path) -> None:
    """Other names, folders, pipes and links are neither read nor deleted."""
    folder.mkdir(parents=True)
    for name in ("notes.txt", "step-25-cpu-4.npz", "step-000000025-cpu-4.npz.bak", "step-x.npz"):
        (folder / name).write_text("mine")
    (folder / "step-000009999-cpu-4.npz").mkdir()
    os.mkfifo(folder / "step-000009998-cpu-4.npz")
    elsewhere = checkpoints.write(tmp_path / "other" / "key", state_at(9997), CPU)
    (folder / elsewhere.name).symlink_to(elsewhere)
    before = names(folder)
    for step in (25, 50, 75):
        checkpoints.write(folder, state_at(step), CPU)
    found, skipped = checkpoints.newest(folder)
    assert found is not None
    assert (found.state.step, skipped) == (75, [])
    assert set(before) < set(names(folder))
    assert elsewhere.exists()


@pytest.mark.parametrize(
    "place", ["another/step-000000025-cpu-4.npz", "key/step-000000099-cpu-4.npz"]
)
def test_a_checkpoint_of_another_training_or_step_is_refused(
    folder: Path, path: Path, place: str
) -> None:
    """The file itself says where it belongs: the same network with another seed looks alike."""
    moved = folder.parent / place
    moved.parent.mkdir(exist_ok=True)
    shutil.copy(path, moved)
    with pytest.raises(ArtifactError, match="belongs to another training or step"):
        checkpoints.read(moved)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    """At every thousandth byte, and at the last."""
    path = checkpoints.write(folder, state_at(25, n=2000), CPU)
    content = path.read_bytes()
    assert len(content) > 25_000
    for length in (*range(0, len(content), 1000), len(content) - 1):
        path.write_bytes(content[:length])
        assert_damaged(path)


def test_files_of_other_kinds_are_refused(path: Path, tmp_path: Path) -> None:
    """Zeros after a disk fault, a page of HTML, a file of another program."""
    size = path.stat().st_size
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    for content in (bytes(size), b"<html>", (tmp_path / "other.npz").read_bytes(), b"PK\5\6"):
        path.write_bytes(content)
        assert_damaged(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bits_never_give_other_numbers(folder: Path, data: st.DataObject) -> None:
    """A damaged file is refused, or reads the same: some bytes of a zip have no meaning."""
    path = checkpoints.write(folder, state_at(25), CPU)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, 8 * len(content) - 1))
        content[where // 8] ^= 1 << where % 8
    path.write_bytes(content)
    try:
        found = checkpoints.read(path)
    except ArtifactError:
        return
    assert same(found.state, state_at(25))


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a checkpoint's metadata, and update its digest."""
    with np.load(path) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    about = json.loads(arrays.pop("about").tobytes())
    change(about)
    with suppress(ValueError):
        parsed = checkpoints._About.model_validate_json(json.dumps(about))
        about["digest"] = checkpoints._digest(parsed, [arrays[name] for name in sorted(arrays)])
    np.savez(path, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "step is text": lambda about: about.update(step="25"),
    "step is a fraction": lambda about: about.update(step=25.5),
    "step is true": lambda about: about.update(step=True),
    "step is null": lambda about: about.update(step=None),
    "step is negative": lambda about: about.update(step=-25),
    "no step": lambda about: about.pop("step"),
    "two sums": lambda about: about.update(sums=[0.5, 1]),
    "sums is text": lambda about: about.update(sums=["0.5", 1, 2]),
    "no history": lambda about: about.pop("history"),
    "history is an object": lambda about: about.update(history={}),
    "a point without a split": lambda about: about["history"][0].pop("split"),
    "a point with a loss is text": lambda about: about["history"][0].update(loss="low"),
    "a device is text": lambda about: about.update(device="cpu"),
    "threads is text": lambda about: about["device"].update(threads="4"),
    "an unknown field": lambda about: about.update(colour="blue"),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_values_of_the_wrong_type_are_refused(
    path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """Their digest is right; they would fail later, in the training or in its tables."""
    rewritten(path, lambda about: about.update(sums=[0.5, 1, 2]))
    assert checkpoints.read(path).state.sums == (0.5, 1, 2), "a valid change must be accepted"
    rewritten(path, change)
    assert_damaged(path)


class Planted:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("name", ["about", "array-000", "array-999"])
@pytest.mark.parametrize("whole", [False, True], ids=["in an array", "as it is"])
def test_nothing_is_ever_unpickled(path: Path, tmp_path: Path, name: str, whole: bool) -> None:
    """An object in an array, or a pickle instead of an array, is refused unread."""
    planted = Planted(tmp_path / "executed")
    with np.load(path) as loaded:
        arrays = {key: loaded[key] for key in loaded.files}
    arrays[name] = np.array([planted], object)
    np.savez(path, **arrays)
    if whole:
        rest = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(rest)) as old, zipfile.ZipFile(path, "w") as new:
            for item in old.namelist():
                own = pickle.dumps(planted) if item == f"{name}.npy" else old.read(item)
                new.writestr(item, own)
    assert_damaged(path)
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(planted))
    assert (tmp_path / "executed").exists(), "the planted object does nothing: the test is wrong"


def test_bombs_are_refused_before_they_are_unpacked(path: Path) -> None:
    """Neither compressed zeros nor a shape of terabytes takes memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("about.npy", bytes(100_000_000))
    with pytest.raises(ArtifactError, match="it is compressed"):
        checkpoints.read(path)
    for n in (10**8, 10**10, 10**13, 10**30):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({n},)}}"
        content = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("about.npy", content)
            archive.writestr("array-000.npy", content)
        assert_damaged(path)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) / 1024 < 200 + 100, "100 MB belong to the test itself"


def test_a_temporary_checkpoint_has_another_name(
    folder: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader never sees half a checkpoint, and one of a killed process is told by its suffix."""
    seen: list[str] = []
    monkeypatch.setattr(atomic, "flush", lambda path: seen.extend(names(folder)))
    checkpoints.write(folder, state_at(50), CPU)
    temporary = {name for name in seen if not name.startswith("step-")}
    assert len(temporary) == 1
    assert all(name.startswith(".") and name.endswith(".part") for name in temporary)
    assert names(folder) == ["step-000000025-cpu-4.npz", "step-000000050-cpu-4.npz"]


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 50.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(checkpoints, "time", clock)
    return clock


def train(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    every: float,
    cost: Callable[[float], float],
    seconds: float = 3000.0,
    megabytes: float = 1.0,
) -> list[tuple[float, float]]:
    """Offer checkpoints for some seconds; return when each was written, and how long it took."""
    written: list[tuple[float, float]] = []
    began = clock.now

    def write(folder: Path, state: TrainingState, device: Device) -> None:
        taken = cost(clock.now - began)
        written.append((clock.now - began, taken))
        clock.now += taken

    monkeypatch.setattr(checkpoints, "write", write)
    keeper = checkpoints.CheckpointWriter(Path("unused"), CPU, every)
    array = np.zeros(int(megabytes * 250_000), np.float32)
    state = TrainingState(1, [array], (0.0, 0, 0), [])
    while clock.now < began + seconds:
        clock.now += 0.25
        keeper.offer(lambda: state)
    return written


def test_they_are_written_at_the_interval(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a fast disk, one every ten seconds: none earlier, none left out."""
    written = train(clock, monkeypatch, every=10, cost=lambda at: 0.01)
    gaps = np.diff([0.0, *(at for at, _ in written)])
    assert gaps.min() >= 10
    assert gaps.max() <= 10.5
    assert len(written) > 280


@pytest.mark.parametrize("megabytes", [0.001, 1, 100])
@pytest.mark.parametrize("every", [1e-9, 0.5, 10])
@pytest.mark.parametrize("cost", [0.02, 0.4, 2.0])
def test_they_take_two_percent_of_the_time_at_most(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    every: float,
    cost: float,
    megabytes: float,
) -> None:
    """From the second one on, however slow the disk; the first one measures how slow."""
    written = train(clock, monkeypatch, every, lambda at: cost, megabytes=megabytes)
    assert len(written) >= 2
    spent = cost
    for at, taken in written[1:]:
        spent += taken
        assert spent <= 0.02 * (at + taken) + 1e-6
    expected = megabytes * 1e6 / checkpoints._BYTES_PER_SECOND
    assert written[0][0] >= expected / 0.02, "the first waits until its estimated cost is allowed"


def test_a_disk_that_becomes_slow_is_spared(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one slow checkpoint the next one waits in proportion."""
    written = train(clock, monkeypatch, 10, lambda at: 10.0 if at > 1000 else 0.01, 4000)
    late = [at for at, taken in written if taken == 10.0]
    assert len(late) >= 2
    assert sum(taken for _, taken in written) <= 0.02 * 4000 + 10
    assert np.diff(late)[1:].min() > 400


@pytest.mark.parametrize("number", [28, 30, 122, 5])
def test_a_disk_that_fails_does_not_end_the_training(
    folder: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    """Full, read-only, over quota or broken: one warning, and no half-written file remains."""

    def broken(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic, "flush", broken)
    keeper = checkpoints.CheckpointWriter(folder, CPU, 1)
    for _ in range(20):
        clock.now += 100
        keeper.offer(lambda: state_at(25))
    (warning,) = [record.message for record in caplog.records]
    assert warning.startswith("training goes on without further checkpoints: ")
    assert os.strerror(number) in warning
    assert names(folder) == []
