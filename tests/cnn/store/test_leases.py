"""Leases between real processes: one works, the others wait, and nobody waits for the dead."""

import json
import os
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

# Starts, at each line that it reads, a process that holds a lease; prints its pid.
NURSERY = """
import json, os, signal, sys, time
from pathlib import Path
from cnn.store import leases

def say(log, *words):
    line = json.dumps([time.monotonic_ns(), os.getpid(), *words]) + "\\n"
    os.write(os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY), line.encode())

def work(wish):
    leases.HEARTBEAT_SECONDS, leases.EXPIRY_SECONDS, leases.POLL_SECONDS = wish["constants"]
    done, until, log = Path(wish["done"]), Path(wish["until"]), wish["log"]
    for folder in wish["folders"]:
        with leases.held(Path(folder), done.exists) as waited:
            if waited and done.exists():
                say(log, "found it done")
                return
            say(log, "in", folder, waited)
            while wish["seconds"] is None and not until.exists():
                time.sleep(0.005)
            time.sleep(wish["seconds"] or 0)
            say(log, "out", folder)

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        work(json.loads(line))
        os._exit(0)
    print(pid, flush=True)
"""


class Nursery:
    """Processes that want leases, and a log of what became of them."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self._process, self._pids = process, list[int]()
        self.lease = folder / "checkpoints" / "key"
        self.done, self.until, self.log = folder / "done", folder / "until", folder / "log"

    def start(
        self,
        heartbeat: float = 0.05,
        expiry: float = 1000,
        poll: float = 0.02,
        seconds: float | None = None,
        folders: list[str] | None = None,
    ) -> int:
        """Start a process that wants the lease and holds it until `until` is there."""
        wish = {
            "constants": [heartbeat, expiry, poll],
            "folders": folders or [str(self.lease)],
            "seconds": seconds,
            **{name: str(getattr(self, name)) for name in ("done", "until", "log")},
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        self._pids.append(int(self._process.stdout.readline()))
        return self._pids[-1]

    def said(self) -> list[tuple[int, ...]]:
        """Return what was logged, without the times: process, words."""
        return [tuple(entry[1:]) for entry in self.entries()]

    def entries(self) -> list[list[Any]]:
        if not self.log.exists():
            return []
        whole, _, _ = self.log.read_text().rpartition("\n")  # the last line may be half-written
        return [json.loads(line) for line in whole.splitlines()]

    def wait_for(self, pid: int, word: str) -> None:
        until(lambda: any(entry[:2] == (pid, word) for entry in self.said()))

    def kill(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def process() -> "Iterator[subprocess.Popen[str]]":
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


@pytest.fixture
def nursery(process: "subprocess.Popen[str]", tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(process, tmp_path)
    yield nursery
    nursery.kill()


def test_one_works_the_other_waits_and_finds_it_done(nursery: Nursery) -> None:
    """The second process neither works nor takes the lease once nothing is left to do."""
    first = nursery.start()
    nursery.wait_for(first, "in")
    second = nursery.start()
    time.sleep(0.2)
    assert [entry[:2] for entry in nursery.said()] == [(first, "in")]
    nursery.done.touch()
    nursery.wait_for(second, "found it done")
    nursery.until.touch()
    nursery.wait_for(first, "out")
    until(lambda: not nursery.lease.exists())


def test_who_waited_works_when_the_other_ended_without_a_result(nursery: Nursery) -> None:
    """The lease is handed on, and nothing of it stays."""
    first = nursery.start()
    nursery.wait_for(first, "in")
    second = nursery.start()
    nursery.until.touch()
    nursery.wait_for(second, "out")
    assert [(entry[0], entry[1]) for entry in nursery.said()] == [
        (first, "in"),
        (first, "out"),
        (second, "in"),
        (second, "out"),
    ]
    until(lambda: not nursery.lease.exists())


def test_a_killed_owner_is_replaced_at_once(nursery: Nursery) -> None:
    """On one machine nobody waits for an expiry, even while the dead process is not reaped."""
    first = nursery.start(heartbeat=1000, expiry=1000)
    nursery.wait_for(first, "in")
    second = nursery.start(heartbeat=1000, expiry=1000)
    time.sleep(0.1)
    os.kill(first, signal.SIGKILL)
    nursery.wait_for(second, "in")
    assert not leases._owner(nursery.lease / leases.NAME).is_dead
    assert nursery.said()[-1][-1], "it says that it waited"


def test_a_stopped_owner_expires_and_leaves_its_successors_lease_alone(nursery: Nursery) -> None:
    """SIGSTOP past the expiry: taken over; resumed, the old owner ends and removes nothing."""
    first = nursery.start()
    nursery.wait_for(first, "in")
    os.kill(first, signal.SIGSTOP)
    second = nursery.start(expiry=0.3, seconds=1000)
    nursery.wait_for(second, "in")
    lease = (nursery.lease / leases.NAME).read_bytes()
    assert json.loads(lease)["pid"] == second
    os.kill(first, signal.SIGCONT)
    nursery.until.touch()
    nursery.wait_for(first, "out")
    time.sleep(0.2)
    assert (nursery.lease / leases.NAME).read_bytes() == lease


def test_an_owner_at_work_shows_that_it_lives(nursery: Nursery) -> None:
    """The lease changes with every heartbeat, without a word from the work itself."""
    first = nursery.start(heartbeat=0.02)
    nursery.wait_for(first, "in")
    for _ in range(3):
        before = leases._beat_of(nursery.lease / leases.NAME)
        until(lambda before=before: leases._beat_of(nursery.lease / leases.NAME) != before)


def test_a_folder_removed_under_its_owner_does_not_end_the_work(nursery: Nursery) -> None:
    """Whoever comes then may begin; the first ends well and takes nothing from the second."""
    first = nursery.start(heartbeat=0.01)
    nursery.wait_for(first, "in")
    for path in nursery.lease.iterdir():
        path.unlink()
    nursery.lease.rmdir()
    time.sleep(0.05)
    second = nursery.start(seconds=1000)
    nursery.wait_for(second, "in")
    nursery.until.touch()
    nursery.wait_for(first, "out")
    time.sleep(0.1)
    assert json.loads((nursery.lease / leases.NAME).read_bytes())["pid"] == second


def test_of_many_that_race_for_dead_owners_leases_one_holds_each_at_a_time(
    nursery: Nursery, tmp_path: Path
) -> None:
    """Five processes, forty leases, each first held by somebody dead: no two at once, ever."""
    folders = [tmp_path / "race" / str(i) for i in range(40)]
    for folder in folders:
        atomic.replace(folder / leases.NAME, forged(pid=2**22 + 1))
    names = [str(folder) for folder in folders]
    pids = [nursery.start(poll=0.001, seconds=0.001, folders=names) for _ in range(5)]
    until(lambda: sum(entry[2] == "out" for entry in nursery.entries()) == 200)
    held = defaultdict(list)
    for moment, pid, word, folder, *_ in nursery.entries():
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
    """Time that passes only in sleeps; `at_sleep` is called in each."""

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


def test_an_owner_on_another_host_is_waited_for_until_the_expiry(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pid means nothing here; its heartbeats do. The wait is by this machine's clock."""
    lease = folder / leases.NAME
    atomic.replace(lease, forged(**ELSEWHERE))
    os.utime(lease, (1, 1))  # by the other's clock it is 1970
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    with leases.held(folder, never) as waited:
        assert waited
        assert leases.EXPIRY_SECONDS <= clock.now - 1000 <= leases.EXPIRY_SECONDS + 1
    assert not folder.exists()


def test_an_owner_on_another_host_that_beats_is_not_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten expiries pass with a heartbeat in each; only the last silence counts."""
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
    "no JSON": b"\x00\xff{",
    "a list": b"[1, 2]",
    "a number": b"5",
    "nested": b"[" * 100_000,
    "other fields": b'{"host": "a"}',
    "more fields": forged(colour="blue"),
    "a pid in words": forged(pid="self"),
    "a pid with NUL": forged(pid="1\0"),
    "a pid of zero": forged(pid=0),
    "a fraction": forged(pid=1.5),
    "a pid as a word": forged(pid=str(os.getpid())),
    "a path": forged(pid="../../etc"),
    "half a letter": forged(host="\ud800"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_lease_that_cannot_be_read_is_waited_for_as_anyones(
    folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a newer version's: it is taken when it stood still for long enough."""
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
    ids=["a pid reused", "nothing known", "no such process", "no possible process"],
)
def test_a_process_that_is_not_the_owner_any_more_is_dead(
    folder: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pid alone proves nothing: it must have started when the owner did."""
    atomic.replace(folder / leases.NAME, forged(**changes))
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    assert not leases.is_live(folder)
    with leases.held(folder, never) as waited:
        assert not waited
    assert clock.n_sleeps == 0


def test_two_owners_in_one_process_take_turns(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another call is another owner, although the process is the same and alive."""
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
    """A training that did not end keeps its checkpoints; the lease and its lock go."""
    with leases.held(folder, never):
        (folder / "step-1.npz").touch()
    assert [path.name for path in folder.iterdir()] == ["step-1.npz"]


def test_an_interrupted_wait_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while waiting: the owner's lease is as it was, and nothing else is there."""
    content = forged()
    atomic.replace(folder / leases.NAME, content)

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(leases, "time", Clock(interrupt))
    with pytest.raises(KeyboardInterrupt), leases.held(folder, never):
        pytest.fail("the lease of a live process was taken")
    assert (folder / leases.NAME).read_bytes() == content
    assert {path.name for path in folder.iterdir()} <= {leases.NAME, ".lease.lock"}


def test_an_interrupted_work_gives_the_lease_back(folder: Path) -> None:
    """Ctrl-C while working: the next one does not have to wait."""
    with pytest.raises(KeyboardInterrupt), leases.held(folder, never):
        raise KeyboardInterrupt
    assert not folder.exists()


def test_a_disk_without_locks_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some disks of a network have none: a message, no traceback."""

    def no_locks(handle: int, how: int) -> None:
        raise OSError(37, os.strerror(37))

    monkeypatch.setattr(atomic.fcntl, "flock", no_locks)
    with (
        pytest.raises(StoreUnwritableError, match=r"a lease could not be written.*No locks"),
        leases.held(folder, never),
    ):
        pytest.fail("a lease was taken")


def test_a_full_disk_is_said_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lease can be taken then; the message names the folder and what is free."""

    def full(target: Path, content: bytes) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(atomic, "replace", full)
    with (
        pytest.raises(StoreUnwritableError, match=r"a lease could not.*No space.*bytes are free"),
        leases.held(folder, never),
    ):
        pytest.fail("a lease was taken")
    assert not folder.exists()


def test_a_place_that_is_a_file_is_an_unwritable_store(tmp_path: Path) -> None:
    """No traceback where the folder cannot be made."""
    (tmp_path / "checkpoints").touch()
    with (
        pytest.raises(StoreUnwritableError, match="a lease could not be written"),
        leases.held(tmp_path / "checkpoints" / "key", never),
    ):
        pytest.fail("a lease was taken")


def test_who_waits_says_for_whom(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with the process and the host; and so does who takes over."""
    caplog.set_level("INFO")
    atomic.replace(folder / leases.NAME, forged(**ELSEWHERE))
    monkeypatch.setattr(leases, "time", Clock())
    with leases.held(folder, never):
        pass
    assert [record.message for record in caplog.records] == [
        "process 4194305 on other does this already; waiting for it",
        "process 4194305 on other ended without finishing; taking over",
    ]


def test_a_leased_folder_is_discarded_by_nobody_else(folder: Path) -> None:
    """Tidying up spares a training that goes on."""
    with leases.held(folder, never):
        leases.discard(folder)
        assert leases.is_live(folder)
        atomic.replace(folder / leases.NAME, forged(pid=2**22 + 1))
        leases.discard(folder)
        assert not folder.exists()


def test_this_process_is_known_by_machine_and_start() -> None:
    """What a lease says of its owner can be checked by others on the machine."""
    me, again = leases.Owner.this(), leases.Owner.this()
    assert (me.host, me.pid) == (socket.gethostname(), os.getpid())
    assert not me.is_dead
    assert me != again
    assert me.started.isdecimal()


def test_a_folder_that_vanishes_while_it_is_made_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever leaves removes the folder, perhaps just when the next one comes."""
    mkdir, errors = Path.mkdir, [FileExistsError(), FileNotFoundError(), FileExistsError()]

    def unlucky(self: Path, *args: Any, **options: Any) -> None:
        if self == folder and errors:
            raise errors.pop()
        mkdir(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", unlucky)
    with leases.held(folder, never):
        assert leases.is_live(folder)
    assert not errors
