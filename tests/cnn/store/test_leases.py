"""Leases between real processes: one works, the others wait, or take over from a dead one."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cnn.errors import StoreUnwritableError
from cnn.io import atomic
from cnn.store import leases

# For each line that it reads, forks a process that holds leases, and prints its pid.
FORKER = """
import json, os, signal, sys, time
from pathlib import Path
from cnn.store import leases

def write(log, *words):
    line = json.dumps([time.monotonic_ns(), os.getpid(), *words]) + "\\n"
    os.write(os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY), line.encode())

def work(options):
    leases.HEARTBEAT_SECONDS, leases.EXPIRY_SECONDS, leases.POLL_SECONDS = options["constants"]
    until, log = Path(options["until"]), options["log"]
    for folder in options["folders"]:
        with leases.held(Path(folder), lambda: False) as waited:
            write(log, "in", folder, waited)
            while options["seconds"] is None and not until.exists():
                time.sleep(0.005)
            time.sleep(options["seconds"] or 0)
            write(log, "out", folder)

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        work(json.loads(line))
        os._exit(0)
    print(pid, flush=True)
"""


class Holders:
    """Processes that take leases, and their common log."""

    def __init__(self, forker: "subprocess.Popen[str]", folder: Path) -> None:
        self._forker, self._pids = forker, list[int]()
        self.lease = folder / "checkpoints" / "key"
        self.until, self.log = folder / "until", folder / "log"

    def start(
        self,
        heartbeat: float = 0.05,
        expiry: float = 1000,
        poll: float = 0.02,
        seconds: float | None = None,
        folders: list[str] | None = None,
    ) -> int:
        """Start a process that takes the lease and holds it until the file `until` exists."""
        options = {
            "constants": [heartbeat, expiry, poll],
            "folders": folders or [str(self.lease)],
            "seconds": seconds,
            "until": str(self.until),
            "log": str(self.log),
        }
        assert self._forker.stdin is not None
        assert self._forker.stdout is not None
        print(json.dumps(options), file=self._forker.stdin, flush=True)
        self._pids.append(int(self._forker.stdout.readline()))
        return self._pids[-1]

    def events(self) -> list[tuple[Any, ...]]:
        """Return the log without folders: process, what it did, whether it had waited."""
        return [(pid, word, *rest[1:]) for _, pid, word, *rest in self.entries()]

    def entries(self) -> list[list[Any]]:
        if not self.log.exists():
            return []
        whole, _, _ = self.log.read_text().rpartition("\n")  # the last line may be half-written
        return [json.loads(line) for line in whole.splitlines()]

    def wait_for(self, pid: int, word: str) -> None:
        until(lambda: any(event[:2] == (pid, word) for event in self.events()))

    def kill(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def forker() -> "Iterator[subprocess.Popen[str]]":
    pipe, command = subprocess.PIPE, [sys.executable, "-c", FORKER]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as forker:
        yield forker


@pytest.fixture
def holders(forker: "subprocess.Popen[str]", tmp_path: Path) -> Iterator[Holders]:
    holders = Holders(forker, tmp_path)
    yield holders
    holders.kill()


def test_a_waiting_process_works_when_the_first_ends_without_a_result(holders: Holders) -> None:
    """The lease passes to it, and afterwards nothing is left."""
    first = holders.start()
    holders.wait_for(first, "in")
    second = holders.start()
    time.sleep(0.2)
    assert holders.events() == [(first, "in", False)]
    holders.until.touch()
    holders.wait_for(second, "out")
    assert [event[:2] for event in holders.events()] == [
        *((first, "in"), (first, "out")),
        *((second, "in"), (second, "out")),
    ]
    until(lambda: not holders.lease.exists())


def test_a_killed_owner_is_replaced_at_once(holders: Holders) -> None:
    """On the same machine no expiry is needed, even if the dead process is still a zombie."""
    first = holders.start(heartbeat=1000, expiry=1000)
    holders.wait_for(first, "in")
    second = holders.start(heartbeat=1000, expiry=1000)
    time.sleep(0.1)
    os.kill(first, signal.SIGKILL)
    holders.wait_for(second, "in")
    assert not leases._owner(holders.lease / leases.NAME).is_dead
    assert holders.events()[-1] == (second, "in", True)


def test_a_stopped_owner_loses_the_lease_and_leaves_its_successors_alone(holders: Holders) -> None:
    """SIGSTOP until the expiry; when resumed, the old owner does not remove the new lease."""
    first = holders.start()
    holders.wait_for(first, "in")
    os.kill(first, signal.SIGSTOP)
    second = holders.start(expiry=0.3, seconds=1000)
    holders.wait_for(second, "in")
    lease = (holders.lease / leases.NAME).read_bytes()
    assert json.loads(lease)["pid"] == second
    os.kill(first, signal.SIGCONT)
    holders.until.touch()
    holders.wait_for(first, "out")
    time.sleep(0.2)
    assert (holders.lease / leases.NAME).read_bytes() == lease


def test_a_working_owner_sends_heartbeats(holders: Holders) -> None:
    """The lease changes with each one, without any help from the work itself."""
    first = holders.start(heartbeat=0.02)
    holders.wait_for(first, "in")
    for _ in range(3):
        before = leases._beat_of(holders.lease / leases.NAME)
        until(lambda before=before: leases._beat_of(holders.lease / leases.NAME) != before)


def test_a_lease_removed_under_its_owner_does_not_end_the_work(holders: Holders) -> None:
    """The next process takes a lease of its own, and the first leaves that one alone."""
    first = holders.start(heartbeat=0.01)
    holders.wait_for(first, "in")
    shutil.rmtree(holders.lease)
    time.sleep(0.05)
    second = holders.start(seconds=1000)
    holders.wait_for(second, "in")
    holders.until.touch()
    holders.wait_for(first, "out")
    time.sleep(0.1)
    assert json.loads((holders.lease / leases.NAME).read_bytes())["pid"] == second


def test_processes_that_race_for_leases_of_dead_owners_hold_each_one_at_a_time(
    holders: Holders, tmp_path: Path
) -> None:
    """Five processes, forty leases, each first held by a dead process."""
    folders = [tmp_path / "race" / str(i) for i in range(40)]
    for folder in folders:
        atomic.replace(folder / leases.NAME, forged(pid=2**22 + 1))
    names = [str(folder) for folder in folders]
    pids = [holders.start(poll=0.001, seconds=0.001, folders=names) for _ in range(5)]
    until(lambda: sum(entry[2] == "out" for entry in holders.entries()) == 200)
    held = defaultdict(list)
    for moment, pid, word, folder, *_ in holders.entries():
        held[folder].append((moment, pid, word))
    assert set(held) == set(names)
    for events in held.values():
        events.sort()
        assert [word for *_, word in events] == ["in", "out"] * 5
        assert all(events[i][1] == events[i + 1][1] for i in range(0, 10, 2))
        assert {pid for _, pid, _ in events} == set(pids)
    until(lambda: not any(folder.exists() for folder in folders))


def forged(**changes: Any) -> bytes:
    owner = leases.Owner.this().model_dump()
    return json.dumps({**owner, "id": "0", **changes}).encode()


class Clock:
    """A clock that advances only in sleeps; `at_sleep` is called in each."""

    def __init__(self, at_sleep: Callable[[], object] = lambda: None) -> None:
        self.now, self.n_sleeps, self._at_sleep = 1000.0, 0, at_sleep

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.n_sleeps += 1
        self._at_sleep()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "key"


def never() -> bool:
    return False


ELSEWHERE = {"host": "other", "processes": "another boot pid:[1]", "pid": 2**22 + 1}


def test_an_owner_on_another_host_expires_by_this_machines_clock(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its pid is not valid here, only its heartbeats count. The log names it once each time."""
    caplog.set_level("INFO")
    lease = folder / leases.NAME
    atomic.replace(lease, forged(**ELSEWHERE))
    os.utime(lease, (1, 1))  # by the other host's clock it is 1970
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    with leases.held(folder, never) as waited:
        assert waited
        assert leases.EXPIRY_SECONDS <= clock.now - 1000 <= leases.EXPIRY_SECONDS + 1
    assert not folder.exists()
    assert [record.message for record in caplog.records] == [
        "process 4194305 on other is already doing this; waiting for it",
        "process 4194305 on other ended without finishing; taking over",
    ]


def test_an_owner_on_another_host_keeps_the_lease_while_it_sends_heartbeats(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten expiry periods pass with a heartbeat in each; only the silence after them counts."""
    lease = folder / leases.NAME
    atomic.replace(lease, forged(**ELSEWHERE))
    heartbeats = iter(range(10))

    def at_sleep() -> None:
        n_sleeps_a_beat = int(0.9 * leases.EXPIRY_SECONDS / leases.POLL_SECONDS)
        if clock.n_sleeps % n_sleeps_a_beat == 0 and (beat := next(heartbeats, None)) is not None:
            os.utime(lease, (beat, beat))

    clock = Clock(at_sleep)
    monkeypatch.setattr(leases, "time", clock)
    with leases.held(folder, never):
        assert clock.now - 1000 >= 10 * leases.EXPIRY_SECONDS
    assert next(heartbeats, None) is None


DAMAGED = {
    "empty": b"",
    "not JSON": b"\x00\xff{",
    "a list": b"[1, 2]",
    "nested": b"[" * 100_000,
    "missing fields": b'{"host": "a"}',
    "more fields": forged(colour="blue"),
    "a pid of letters": forged(pid="self"),
    "a pid with NUL": forged(pid="1\0"),
    "a pid of zero": forged(pid=0),
    "a fractional pid": forged(pid=1.5),
    "a pid as a string": forged(pid=str(os.getpid())),
    "a lone surrogate": forged(host="\ud800"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_an_unreadable_lease_is_taken_over_after_the_expiry(
    folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer version may have written it, so it is not taken over at once."""
    atomic.replace(folder / leases.NAME, content)
    assert not leases.is_live(folder)
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    with leases.held(folder, never):
        assert clock.now - 1000 >= leases.EXPIRY_SECONDS
        assert leases.is_live(folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    "changes",
    [{"started": "1"}, {"started": ""}, {"pid": 2**22 + 1}, {"pid": 10**30}],
    ids=["a reused pid", "no start time", "no such process", "an impossible pid"],
)
def test_an_owner_whose_process_no_longer_exists_is_replaced_at_once(
    folder: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process with the same pid must also have the same start time."""
    atomic.replace(folder / leases.NAME, forged(**changes))
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    assert not leases.is_live(folder)
    with leases.held(folder, never) as waited:
        assert not waited
    assert clock.n_sleeps == 0


def test_a_wait_ends_when_the_work_is_done(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a second call in the same process waits, and does not touch the lease."""
    with leases.held(folder, never):
        clock = Clock()
        monkeypatch.setattr(leases, "time", clock)
        before = (folder / leases.NAME).read_bytes()
        with leases.held(folder, lambda: clock.n_sleeps == 3) as waited:
            assert waited
            assert (folder / leases.NAME).read_bytes() == before
        assert leases.is_live(folder)
    assert not folder.exists()


def test_other_files_stay_in_the_folder(folder: Path) -> None:
    """An unfinished training keeps its checkpoints; the lease and its lock are removed."""
    with leases.held(folder, never):
        (folder / "step-1.npz").touch()
    assert [path.name for path in folder.iterdir()] == ["step-1.npz"]


def test_an_interrupted_wait_leaves_the_lease_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while waiting leaves no other file."""
    content = forged()
    atomic.replace(folder / leases.NAME, content)

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(leases, "time", Clock(interrupt))
    with pytest.raises(KeyboardInterrupt), leases.held(folder, never):
        pytest.fail("the lease of a live process was taken")
    assert (folder / leases.NAME).read_bytes() == content
    assert {path.name for path in folder.iterdir()} <= {leases.NAME, ".lease.lock"}


def test_interrupted_work_releases_the_lease(folder: Path) -> None:
    """After Ctrl-C the next process does not have to wait."""
    with pytest.raises(KeyboardInterrupt), leases.held(folder, never):
        raise KeyboardInterrupt
    assert not folder.exists()


def failing(number: int) -> Callable[..., None]:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


UNWRITABLE: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], None], str]] = {
    "a network disk without locks": (
        lambda folder, patch: patch.setattr(atomic.fcntl, "flock", failing(errno.ENOLCK)),
        "No locks",
    ),
    "a full disk": (
        lambda folder, patch: patch.setattr(atomic, "replace", failing(errno.ENOSPC)),
        "No space.*bytes are free",
    ),
    "a file in place of a folder": (lambda folder, patch: folder.parent.touch(), "Not a directory"),
}


@pytest.mark.parametrize("obstacle", UNWRITABLE)
def test_a_lease_that_cannot_be_written_is_an_unwritable_store(
    folder: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    """The message names the folder and the reason."""
    obstruct, match = UNWRITABLE[obstacle]
    obstruct(folder, monkeypatch)
    with (
        pytest.raises(StoreUnwritableError, match=f"a lease could not .* to {folder}.*{match}"),
        leases.held(folder, never),
    ):
        pytest.fail("a lease was taken")
    assert not (folder / leases.NAME).exists()
    assert obstacle != "a full disk" or not folder.exists()


def test_discard_spares_a_leased_folder_until_its_owner_is_dead(folder: Path) -> None:
    """Cleaning up does not touch a training in progress."""
    with leases.held(folder, never):
        leases.discard(folder)
        assert leases.is_live(folder)
        atomic.replace(folder / leases.NAME, forged(pid=2**22 + 1))
        leases.discard(folder)
        assert not folder.exists()


def test_an_owner_has_the_host_pid_and_start_time_of_its_process() -> None:
    """Other processes on the machine can check all three."""
    me, again = leases.Owner.this(), leases.Owner.this()
    assert (me.host, me.pid) == (socket.gethostname(), os.getpid())
    assert not me.is_dead
    assert me != again
    assert me.started.isdecimal()


def test_a_folder_that_is_removed_while_it_is_created_is_created_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends removes the folder, perhaps just as the next one begins."""
    mkdir, errors = Path.mkdir, [FileExistsError(), FileNotFoundError(), FileExistsError()]

    def unlucky(self: Path, *args: Any, **options: Any) -> None:
        if self == folder and errors:
            raise errors.pop()
        mkdir(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", unlucky)
    with leases.held(folder, never):
        assert leases.is_live(folder)
    assert not errors
