"""Workers: each kind returns the function's result, and survives the death of a worker."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest

from cnn.config.run import RuntimeConfig
from cnn.errors import ConfigError, FilterscopeError, WorkerDiedError
from cnn.explain import shards
from cnn.pipeline import fingerprints
from tasks.runtime import workers
from tasks.runtime.workers import Workers
from tests.commands import wait_for

slow = pytest.mark.slow
KINDS = [pytest.param("processes", marks=slow), pytest.param("dask", marks=slow)]


def _where(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return os.getpid()


def _threads() -> int:
    import tensorflow as tf

    return int(tf.config.threading.get_intra_op_parallelism_threads())


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _refuse() -> None:
    raise ConfigError("layer conv9: not found")


def _assert_ends(pid: int) -> None:
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), 20)


@pytest.fixture(scope="module", params=KINDS)
def crew(request: pytest.FixtureRequest) -> Iterator[Workers]:
    """Two workers in separate processes."""
    runtime = RuntimeConfig(task_runner=request.param, workers=2)
    with workers.engaged(runtime) as engaged:
        yield engaged


def _all(crew: Workers, n: int, seconds: float = 0.0) -> list[int]:
    with ThreadPoolExecutor(n) as threads:
        return list(threads.map(lambda _: crew.run(_where, seconds), range(n)))


def test_two_processes_share_the_shards(crew: Workers) -> None:
    """Neither of them is the run's own process."""
    found = set(_all(crew, 8, 0.5))
    assert len(found) == 2
    assert os.getpid() not in found


@pytest.mark.parametrize("kind", KINDS)
def test_the_settings_choose_the_number_of_workers(kind: str) -> None:
    """It need not be the number of cores."""
    with workers.engaged(RuntimeConfig(task_runner=kind, workers=1)) as crew:
        assert len(set(_all(crew, 4, 0.2))) == 1


def test_an_error_is_raised_unchanged(crew: Workers) -> None:
    """The worker keeps working."""
    with pytest.raises(ConfigError, match="layer conv9: not found"):
        crew.run(_refuse)
    assert crew.run(_where)


def test_a_dead_worker_costs_only_its_shard(crew: Workers) -> None:
    """The other shards continue, and another worker takes its place."""
    before = set(_all(crew, 4, 0.5))
    with ThreadPoolExecutor(3) as threads:
        other = threads.submit(crew.run, _where, 3.0)
        with pytest.raises(WorkerDiedError, match="searched again"):
            crew.run(_die)
        assert other.result() in before or type(crew).__name__ == "_Dask"
    after = set(_all(crew, 8, 0.5))
    assert len(after) == 2
    assert after != before


def test_the_workers_share_the_cores(crew: Workers) -> None:
    """Two workers use half of the threads each."""
    assert crew.run(_threads) == max(1, (os.cpu_count() or 1) // 2)


@slow
def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """Even if it is killed by SIGKILL."""
    script = (
        "import sys, tasks.runtime.workers as w\n"
        "from cnn.config.run import RuntimeConfig\n"
        "from tests.tasks.runtime.test_workers import _where\n"
        "if __name__ == '__main__':\n"
        "    with w.engaged(RuntimeConfig(task_runner='processes', workers=1)) as crew:\n"
        "        print(crew.run(_where), flush=True)\n"
        "        crew.run(_where, 600.0)\n"
    )
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(
        [sys.executable, tmp_path / "script.py"], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout
        worker = int(process.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        process.kill()
        _assert_ends(worker)


def test_a_worker_with_other_code_is_refused() -> None:
    """A worker with another version could give other bytes for the same key."""
    ours = fingerprints.of(shards.__name__)
    assert workers.with_same_code(ours, shards.cut, 10, 5) == shards.cut(10, 5)
    with pytest.raises(ConfigError, match="a worker's code differs from this run's"):
        workers.with_same_code({**ours, "cnn.explain.mining": "another"}, shards.cut, 10, 5)


def test_the_runs_own_process_works_on_one_shard_at_a_time() -> None:
    """Calls from other threads wait."""
    running: list[int] = []

    def work() -> int:
        running.append(1)
        n = len(running)
        time.sleep(0.05)
        running.pop()
        return n

    with workers.engaged(RuntimeConfig()) as crew, ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: crew.run(work), range(8))) == {1}
        assert crew.run(os.getpid) == os.getpid()
    assert threading.active_count() < 50


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_shards_that_still_wait_when_the_search_ends_are_not_started(kind: str) -> None:
    """After a failure nothing waits for ever or is computed in vain."""
    runtime = RuntimeConfig(task_runner=kind, workers=None if kind == "none" else 1)
    with ThreadPoolExecutor(3) as threads:
        with workers.engaged(runtime) as crew:
            crew.run(_where)
            first = threads.submit(crew.run, _where, 1.0)
            time.sleep(0.3)
            others = [threads.submit(crew.run, _where, 5.0) for _ in range(2)]
            time.sleep(0.1 if kind != "dask" else 0.0)
        started = time.monotonic()
        if kind != "dask":
            assert first.result()
        for other in others:
            with pytest.raises((FilterscopeError, CancelledError)):
                other.result(timeout=20)
    assert time.monotonic() - started < 4.5


@slow
def test_processes_end_at_once_if_the_run_failed() -> None:
    """Their running shards are dropped."""
    runtime = RuntimeConfig(task_runner="processes", workers=1)
    with ThreadPoolExecutor(2) as threads:
        with pytest.raises(KeyboardInterrupt), workers.engaged(runtime) as crew:
            pid = crew.run(_where)
            part = threads.submit(crew.run, _where, 600.0)
            time.sleep(0.5)
            raise KeyboardInterrupt
        with pytest.raises(FilterscopeError, match="the search has ended"):
            part.result(timeout=20)
    _assert_ends(pid)


@slow
def test_an_address_without_a_scheduler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the address and what should be there."""
    monkeypatch.setattr(workers, "_CONNECT_SECONDS", 1.0)
    runtime = RuntimeConfig(task_runner="dask", dask_address="tcp://127.0.0.1:9")
    message = r"runtime\.dask_address: tcp://127\.0\.0\.1:9 is refused; no Dask scheduler"
    with pytest.raises(ConfigError, match=message):
        workers.refuse_missing(runtime)


@slow
def test_a_scheduler_without_workers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shards would wait for ever."""
    import distributed

    monkeypatch.setattr(workers, "_CONNECT_SECONDS", 2.0)
    with distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        address = cluster.scheduler_address
        runtime = RuntimeConfig(task_runner="dask", dask_address=address)
        with pytest.raises(ConfigError, match="no Dask scheduler with a worker answers"):
            workers.refuse_missing(runtime)


@slow
def test_an_address_reaches_an_existing_cluster() -> None:
    """Its workers search, and the cluster continues after the search."""
    import distributed

    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0"
    ) as cluster:
        runtime = RuntimeConfig(task_runner="dask", dask_address=cluster.scheduler_address)
        workers.refuse_missing(runtime)
        with workers.engaged(runtime) as crew:
            assert len(set(_all(crew, 4, 0.2))) == 1
        assert len(cluster.scheduler_info["workers"]) == 1


def test_dask_is_refused_if_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"install the extra filterscope\[dask\]"):
        workers.refuse_missing(RuntimeConfig(task_runner="dask"))
    workers.refuse_missing(RuntimeConfig(task_runner="processes"))
