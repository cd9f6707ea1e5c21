"""Several processes download into one empty folder, and one of them may be killed."""

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

PROCESS = """
import hashlib, sys
from pathlib import Path
from cnn.config.run import DataConfig
from cnn.data import published, sources
published.SETS["mnist"] = published.PublishedSet({addresses!r}, sha256={digests!r})
config, downloads = DataConfig(source="mnist"), Path(sys.argv[1])
dataset = sources.load(sources.identify(config, downloads), config)
sha256 = hashlib.sha256()
for split in dataset.splits.values():
    sha256.update(split.images.tobytes() + split.labels.tobytes())
print(sha256.hexdigest())
"""
LARGEST = published.FILE_NAMES["train-images"]


@contextmanager
def watched(folder: Path, bodies: Mapping[str, bytes]) -> Iterator[set[str]]:
    """Poll a folder every 5 ms; yield the final names seen so far, with "" for a wrong file."""
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            for path in folder.glob("[!.]*"):
                seen.add(path.name if path.read_bytes() == bodies[path.name] else "")

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def kill_at_30_percent(
    folder: Path, processes: Sequence[subprocess.Popen[str]], n_bytes: int
) -> subprocess.Popen[str]:
    """Kill the process that has written 30 % of the largest file; return it."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        for part in folder.glob(f".{LARGEST}.*"):
            with suppress(FileNotFoundError):
                if part.stat().st_size >= 0.3 * n_bytes:
                    writer = next(process for process in processes if has_open(process.pid, part))
                    writer.send_signal(signal.SIGKILL)
                    return writer
        time.sleep(0.002)
    raise AssertionError("no download reached 30 %")


def has_open(pid: int, path: Path) -> bool:
    """Return whether a process has a file open."""
    handles = Path(f"/proc/{pid}/fd")
    return any(handle.readlink() == path for handle in handles.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("n_processes", "kill"), [(4, False), (4, True), (1, True)])
def test_processes_that_download_together_load_the_same_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_processes: int, kill: bool
) -> None:
    """No final name ever has incomplete bytes, and a killed process does not block the others.

    A process that is killed alone leaves only a temporary file, which the next run removes.
    """
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    bodies = hosts.written(tmp_path / "host", hosts.small_set())
    folder = tmp_path / "downloads" / "mnist"
    with hosts.serving(bodies) as server, watched(folder, bodies) as seen:
        server.piece, server.pause = 512, 0.02
        addresses = tuple(server.at("drip"))
        script = PROCESS.format(digests=hosts.digests(tmp_path / "host"), addresses=addresses)
        command = [sys.executable, "-c", script, str(folder.parent)]
        processes = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(n_processes)
        ]
        started = time.monotonic()
        killed = kill_at_30_percent(folder, processes, len(bodies[LARGEST])) if kill else None
        outputs = {process: process.communicate(timeout=60)[0] for process in processes}
        assert time.monotonic() - started < 30
        for process in processes:
            assert process.returncode == (-signal.SIGKILL if process is killed else 0)
        if n_processes == 1:
            assert [path.suffix for path in folder.iterdir()] == [".part"]
        later = subprocess.run(command, capture_output=True, text=True, check=True)
        assert {outputs[process] for process in processes if process is not killed} <= {
            later.stdout
        }
        assert sum(server.asked.values()) == 4 + kill
    assert seen == set(bodies)
    assert {path.name for path in folder.iterdir()} == set(bodies)
