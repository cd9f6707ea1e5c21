"""Workers that search shards: this process, several processes, or a Dask cluster.

A separate Prefect task waits for each shard. When a worker dies, only its shard is searched
again: Prefect's own process pool would lose all running shards and leave their task runs in
state Running for ever.
"""

import logging
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import wait
from typing import Any, Protocol, TypeVar

from cnn.config.run import RuntimeConfig
from cnn.errors import ConfigError, FilterscopeError, WorkerDiedError
from cnn.pipeline import fingerprints

log = logging.getLogger("cnn.run")

T = TypeVar("T")
_CONNECT_SECONDS = 20.0


class Workers(Protocol):
    """Calls functions on workers; thread-safe."""

    def run(self, function: Callable[..., T], /, *values: Any) -> T:
        """Call a function on a worker and return its result; raises WorkerDiedError."""


@contextmanager
def engaged(runtime: RuntimeConfig) -> Iterator[Workers]:
    """Yield the workers that the settings select; each starts with its first shard."""
    n = runtime.workers or os.cpu_count() or 1
    match runtime.task_runner:
        case "none":
            with _Here() as here:
                yield here
        case "processes":
            with _Processes(n, _shared_out(runtime, n)) as processes:
                yield processes
        case "dask":
            with _Dask(runtime, n) as cluster:
                yield cluster


def with_same_code(code: Mapping[str, str], function: Callable[..., T], /, *values: Any) -> T:
    """Call a function and return its result; raises ConfigError if this process has other code.

    code: the fingerprints of the function's module in the process of the run.
    """
    if fingerprints.of(function.__module__) != code:
        raise ConfigError(
            "a worker's code differs from this run's; install the same version of filterscope there"
        )
    return function(*values)


def refuse_missing(runtime: RuntimeConfig) -> None:
    """Raise ConfigError if Dask is selected but not installed, or if no Dask worker answers."""
    if runtime.task_runner == "dask":
        _distributed()
    if runtime.dask_address:
        _client(runtime.dask_address).close()


def _refuse_more(is_over: bool) -> None:
    """Raise FilterscopeError for a shard that still waits when the search has ended."""
    if is_over:
        raise FilterscopeError("the search has ended; this shard was not started")


def _shared_out(runtime: RuntimeConfig, n: int) -> RuntimeConfig:
    """Return the settings for one of n workers on this machine, which share its cores."""
    threads = runtime.threads or max(1, (os.cpu_count() or 1) // n)
    return runtime.model_copy(update={"threads": threads})


class _Here:
    """The run's own process, which searches one shard at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_over = False

    def __enter__(self) -> "_Here":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True

    def run(self, function: Callable[..., T], /, *values: Any) -> T:
        with self._lock:
            _refuse_more(self._is_over)
            return function(*values)


class _Processes:
    """Processes, each in a pool of its own, so that the death of one does not affect the others."""

    def __init__(self, n: int, settings: RuntimeConfig) -> None:
        self._settings = settings
        self._idle: queue.SimpleQueue[ProcessPoolExecutor | None] = queue.SimpleQueue()
        self._n, self._is_over = n, False
        self._pids: set[int] = set()
        for _ in range(n):
            self._idle.put(None)  # started when there is work

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True
        if exc_info[0]:  # the run failed: no result is needed any more
            for pid in self._pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for _ in range(self._n):
            if pool := self._idle.get():
                pool.shutdown(cancel_futures=True)
        self._idle.put(None)  # wakes the shards that still wait, so that they see the end

    def run(self, function: Callable[..., T], /, *values: Any) -> T:
        pool = self._idle.get()
        try:
            _refuse_more(self._is_over)
            pool = pool or self._new_pool()
            return pool.submit(function, *values).result()
        except BrokenProcessPool:
            pool = None
            _refuse_more(self._is_over)
            raise WorkerDiedError("a worker process died; its shard is searched again") from None
        finally:
            self._idle.put(pool)

    def _new_pool(self) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(1, spawn, _start, (self._settings,))
        self._pids.add(pool.submit(os.getpid).result())
        return pool


class _Dask:
    """A Dask cluster: the one at the configured address, or a temporary one on this machine."""

    def __init__(self, runtime: RuntimeConfig, n: int) -> None:
        self._runtime, self._n = runtime, n
        self._held = ExitStack()
        self._lock = threading.Lock()
        self._client: Any = None
        self._is_over = False

    def __enter__(self) -> "_Dask":
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._is_over = True
        self._held.close()

    def run(self, function: Callable[..., T], /, *values: Any) -> T:
        client = self._connected()
        settings = self._runtime
        if settings.dask_address is None:
            settings = _shared_out(settings, self._n)
        future = client.submit(_prepared, settings, function, *values, pure=False)
        try:
            result: T = future.result()
        except _distributed().scheduler.KilledWorker:
            raise WorkerDiedError("Dask workers died on a shard; it is searched again") from None
        except ImportError as error:
            raise ConfigError(
                f"a Dask worker cannot import the search ({error}); install the same version of "
                "filterscope there"
            ) from None
        except CancelledError:
            raise FilterscopeError("the Dask cluster closed during the search; run again") from None
        return result

    def _connected(self) -> Any:
        """Return the client; raises ConfigError where no scheduler answers."""
        distributed = _distributed()
        with self._lock:
            _refuse_more(self._is_over)
            if self._client is None:
                address = self._runtime.dask_address or self._held.enter_context(
                    distributed.LocalCluster(
                        n_workers=self._n, threads_per_worker=1, dashboard_address="127.0.0.1:0"
                    )
                )
                client = _client(address)
                self._held.callback(client.close)  # closes in any thread; a `with` would not
                self._client = client
        return self._client


def _client(address: Any) -> Any:
    """Return a client of the Dask cluster at an address; raises ConfigError if it has no worker."""
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout=_CONNECT_SECONDS)
        client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:  # a timeout is an OSError
        raise ConfigError(
            f"runtime.dask_address: {address} is refused; no Dask scheduler with a worker answers "
            f"there ({error})"
        ) from None
    return client


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise ConfigError(
            "runtime.task_runner: dask is refused because Dask is not installed; "
            "install the extra filterscope[dask]"
        ) from None
    logging.getLogger("distributed").setLevel(logging.ERROR)  # importing it sets INFO
    return distributed


def _start(settings: RuntimeConfig) -> None:
    """Prepare a new worker process, which ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the run, which ends its workers
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _prepare(settings)


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


_lock = threading.Lock()
_is_prepared = False


def _prepare(settings: RuntimeConfig) -> None:
    """Set up TensorFlow once per process; a Dask worker may have several threads."""
    global _is_prepared  # noqa: PLW0603
    with _lock:
        if not _is_prepared:
            from cnn.train import device

            device.prepare(settings)
            _is_prepared = True


def _prepared(settings: RuntimeConfig, function: Callable[..., T], *values: Any) -> T:
    _prepare(settings)
    return function(*values)
