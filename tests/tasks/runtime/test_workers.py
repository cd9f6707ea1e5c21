"""Workers: each kind returns what a function returns there, and outlives a worker that dies."""

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

KINDS = ["none", "processes", "dask"]
slow = pytest.mark.slow


def _where(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return os.getpid()


def _threads() -> int:
    import tensorflow as tf

    return int(tf.config.threading.get_intra_op_parallelism_threads())


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _refuse() -> None:
    raise ConfigError("layer conv9: is not there")


@pytest.fixture(scope="module", params=[pytest.param(kind, marks=slow) for kind in KINDS[1:]])
def crew(request: pytest.FixtureRequest) -> Iterator[Workers]:
    """Two workers in processes of their own."""
    runtime = RuntimeConfig(task_runner=request.param, workers=2)
    with workers.engaged(runtime) as engaged:
        yield engaged


def _all(crew: Workers, n: int, seconds: float = 0.0) -> list[int]:
    with ThreadPoolExecutor(n) as threads:
        return list(threads.map(lambda _: crew.run(_where, seconds), range(n)))


def test_two_processes_share_the_parts(crew: Workers) -> None:
    """Neither of them is the run's own."""
    found = set(_all(crew, 8, 0.5))
    assert len(found) == 2
    assert os.getpid() not in found


@slow
@pytest.mark.parametrize("kind", KINDS[1:])
def test_there_are_as_many_workers_as_are_asked_for(kind: str) -> None:
    """Not as many as there are cores."""
    with workers.engaged(RuntimeConfig(task_runner=kind, workers=1)) as crew:
        assert len(set(_all(crew, 4, 0.2))) == 1


def test_an_error_comes_back_as_it_is(crew: Workers) -> None:
    """Whoever reads it can act on it; the worker works on."""
    with pytest.raises(ConfigError, match="layer conv9: is not there"):
        crew.run(_refuse)
    assert crew.run(_where)


def test_a_worker_that_dies_costs_its_part_only(crew: Workers) -> None:
    """The others' go on, and another worker takes its place."""
    before = set(_all(crew, 4, 0.5))
    with ThreadPoolExecutor(3) as threads:
        other = threads.submit(crew.run, _where, 3.0)
        with pytest.raises(WorkerDiedError, match="done again"):
            crew.run(_die)
        assert other.result() in before or type(crew).__name__ == "_Dask"
    after = set(_all(crew, 8, 0.5))
    assert len(after) == 2
    assert after != before


def test_the_cores_are_shared_out(crew: Workers) -> None:
    """Two workers have half of the threads each."""
    assert crew.run(_threads) == max(1, (os.cpu_count() or 1) // 2)


@slow
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """By SIGKILL too."""
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
        deadline = time.monotonic() + 20
        while Path(f"/proc/{worker}").exists():
            assert time.monotonic() < deadline, "the worker goes on"
            time.sleep(0.1)


def test_other_code_is_refused() -> None:
    """A worker elsewhere with another version would give other bytes under the same key."""
    ours = fingerprints.of(shards.__name__)
    assert workers.with_same_code(ours, shards.cut, 10, 5) == shards.cut(10, 5)
    with pytest.raises(ConfigError, match="a worker has other code than this run"):
        workers.with_same_code({**ours, "cnn.explain.mining": "another"}, shards.cut, 10, 5)


def test_here_one_part_is_done_at_a_time() -> None:
    """In the run's own process, from whatever threads it is asked."""
    at_work: list[int] = []

    def work() -> int:
        at_work.append(1)
        n = len(at_work)
        time.sleep(0.05)
        at_work.pop()
        return n

    with workers.engaged(RuntimeConfig()) as crew, ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: crew.run(work), range(8))) == {1}
        assert crew.run(os.getpid) == os.getpid()
    assert threading.active_count() < 50


@pytest.mark.parametrize(
    "kind", ["none", pytest.param("processes", marks=slow), pytest.param("dask", marks=slow)]
)
def test_parts_that_wait_when_the_search_is_over_are_not_begun(kind: str) -> None:
    """It has failed: nobody waits for ever, and nothing is computed for nobody."""
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
def test_processes_are_ended_at_once_where_the_run_has_failed() -> None:
    """Nobody waits for what they were at."""
    runtime = RuntimeConfig(task_runner="processes", workers=1)
    with ThreadPoolExecutor(2) as threads:
        with pytest.raises(KeyboardInterrupt), workers.engaged(runtime) as crew:
            pid = crew.run(_where)
            part = threads.submit(crew.run, _where, 600.0)
            time.sleep(0.5)
            raise KeyboardInterrupt
        with pytest.raises(FilterscopeError, match="the search is over"):
            part.result(timeout=20)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the worker goes on"
        time.sleep(0.1)


@slow
def test_a_scheduler_that_does_not_answer_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the address, and what was expected there, before anything else is done."""
    monkeypatch.setattr(workers, "_CONNECT_SECONDS", 1.0)
    runtime = RuntimeConfig(task_runner="dask", dask_address="tcp://127.0.0.1:9")
    with pytest.raises(
        ConfigError, match=r"runtime\.dask_address: tcp://127\.0\.0\.1:9 is refused"
    ):
        workers.refuse_missing(runtime)


@slow
def test_a_scheduler_without_workers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts would wait for ever."""
    import distributed

    monkeypatch.setattr(workers, "_CONNECT_SECONDS", 2.0)
    with distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        address = cluster.scheduler_address
        runtime = RuntimeConfig(task_runner="dask", dask_address=address)
        with pytest.raises(ConfigError, match="no Dask scheduler with a worker answers"):
            workers.refuse_missing(runtime)


@slow
def test_an_address_reaches_a_cluster_that_is_there() -> None:
    """Its workers work, with threads of their own number."""
    import distributed

    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0"
    ) as one:
        runtime = RuntimeConfig(task_runner="dask", dask_address=one.scheduler_address)
        workers.refuse_missing(runtime)
        with workers.engaged(runtime) as crew:
            assert len(set(_all(crew, 4, 0.2))) == 1
        assert len(one.scheduler_info["workers"]) == 1, "it goes on when the search is over"


def test_dask_that_is_not_installed_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"install the extra filterscope\[dask\]"):
        workers.refuse_missing(RuntimeConfig(task_runner="dask"))
    workers.refuse_missing(RuntimeConfig(task_runner="processes"))
