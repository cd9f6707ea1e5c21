"""Case 04: several processes download into one empty folder."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cnn.data import published
from tests import hosts

pytestmark = pytest.mark.slow

PROCESS = """
import hashlib, sys
from pathlib import Path
from cnn.config.run import DataConfig
from cnn.data import published, sources
published.SETS["mnist"] = published.PublishedSet("MNIST", {addresses!r}, sha256={digests!r})
config, downloads = DataConfig(source="mnist"), Path(sys.argv[1])
dataset = sources.load(sources.identify(config, downloads), config)
sha256 = hashlib.sha256()
for split in dataset.splits.values():
    sha256.update(split.images.tobytes() + split.labels.tobytes())
print(sha256.hexdigest())
"""
LARGEST = published.FILE_NAMES["train-images"]


@contextmanager
def watched(folder: Path, whole: Mapping[str, bytes]) -> Iterator[set[str]]:
    """Look at a folder every 5 ms; yield the final names that were seen, and "" for a bad one."""
    seen: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.005):
            for path in folder.glob("[!.]*"):
                seen.add(path.name if path.read_bytes() == whole[path.name] else "")

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def kill_at_30_percent(
    folder: Path, processes: Sequence[subprocess.Popen[str]], n_bytes: int
) -> subprocess.Popen[str]:
    """Kill the process that writes the largest file when 30 % of it are there; return it."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        for part in folder.glob(f".{LARGEST}.*"):
            with suppress(FileNotFoundError):
                if part.stat().st_size >= 0.3 * n_bytes:
                    writer = next(item for item in processes if has_open(item.pid, part))
                    writer.send_signal(signal.SIGKILL)
                    return writer
        time.sleep(0.002)
    raise AssertionError("no download reached 30 %")


def has_open(pid: int, path: Path) -> bool:
    """Return whether a process has a file open."""
    handles = Path(f"/proc/{pid}/fd")
    return any(handle.readlink() == path for handle in handles.iterdir())


@pytest.mark.parametrize("kill", [False, True])
def test_four_processes_load_the_same_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: bool
) -> None:
    """No final name has incomplete bytes, ever; a process that is killed holds up nobody."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    bodies = hosts.written(tmp_path / "host", hosts.small_set())
    folder = tmp_path / "downloads" / "mnist"
    with hosts.serving(bodies) as server, watched(folder, bodies) as seen:
        server.piece, server.pause = 512, 0.02
        script = PROCESS.format(
            digests=hosts.digests(tmp_path / "host"), addresses=tuple(server.at("drip"))
        )
        words = [sys.executable, "-c", script, str(folder.parent)]
        processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        started = time.monotonic()
        killed = kill_at_30_percent(folder, processes, len(bodies[LARGEST])) if kill else None
        said = {item: item.communicate(timeout=60)[0] for item in processes}
        assert time.monotonic() - started < 30
        alive = [item for item in processes if item is not killed]
        assert [item.returncode for item in alive] == [0] * len(alive)
        assert len({said[item] for item in alive}) == 1
        assert sum(server.asked.values()) == 4 + kill
        later = subprocess.run(words, capture_output=True, text=True, check=True)
        assert later.stdout == said[alive[0]]
    assert seen == set(bodies)
    assert {path.name for path in folder.iterdir()} == set(bodies)


def test_what_a_killed_process_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed alone, it leaves a temporary file and no other; the next run leaves the set."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    bodies = hosts.written(tmp_path / "host", hosts.small_set())
    folder = tmp_path / "downloads" / "mnist"
    with hosts.serving(bodies) as server:
        server.piece, server.pause = 512, 0.02
        script = PROCESS.format(
            digests=hosts.digests(tmp_path / "host"), addresses=tuple(server.at("drip"))
        )
        words = [sys.executable, "-c", script, str(folder.parent)]
        process = subprocess.Popen(words)
        kill_at_30_percent(folder, [process], len(bodies[LARGEST]))
        assert process.wait() == -signal.SIGKILL
        assert [path.suffix for path in folder.iterdir()] == [".part"]
        subprocess.run(words, capture_output=True, check=True)
    assert {path.name for path in folder.iterdir()} == set(bodies)
