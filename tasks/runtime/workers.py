"""Where the parts of a search are worked on: in this process, in others, on a Dask cluster.

A Prefect task of its own waits for each part. A worker that dies costs the part it was at,
which is done again: Prefect's process pool would lose all parts that are under way, and
leave their task runs running for ever.
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
    """Who works on the parts; safe to use from several threads."""

    def run(self, function: Callable[..., T], /, *values: Any) -> T:
        """Return what a function returns there; raises WorkerDiedError."""


@contextmanager
def engaged(runtime: RuntimeConfig) -> Iterator[Workers]:
    """Yield the workers that the settings ask for; they start with their first part."""
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
    """Return what a function returns; raises ConfigError where this process has other code.

    code: the fingerprints of the function's module, where the work is wanted.
    """
    if fingerprints.of(function.__module__) != code:
        raise ConfigError("a worker has other code than this run; install the same filterscope")
    return function(*values)


def refuse_missing(runtime: RuntimeConfig) -> None:
    """Raise ConfigError where Dask is asked for and is not installed, or no worker answers."""
    if runtime.task_runner == "dask":
        _distributed()
    if runtime.dask_address:
        _client(runtime.dask_address).close()


def _refuse_more(is_over: bool) -> None:
    """Raise FilterscopeError for a part that waits while the search has failed."""
    if is_over:
        raise FilterscopeError("the search is over; this part was not begun")


def _shared_out(runtime: RuntimeConfig, n: int) -> RuntimeConfig:
    """Return how one of n workers on this machine computes: the cores are shared out."""
    threads = runtime.threads or max(1, (os.cpu_count() or 1) // n)
    return runtime.model_copy(update={"threads": threads})


class _Here:
    """The run's own process, which works on one part at a time."""

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
    """Processes, each alone in its pool, so that one that dies takes no other with it."""

    def __init__(self, n: int, settings: RuntimeConfig) -> None:
        self._settings = settings
        self._idle: queue.SimpleQueue[ProcessPoolExecutor | None] = queue.SimpleQueue()
        self._n, self._is_over = n, False
        self._pids: set[int] = set()
        for _ in range(n):
            self._idle.put(None)  # hired when there is work

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True
        if exc_info[0]:  # nobody needs any more what they are at
            for pid in self._pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for _ in range(self._n):
            if pool := self._idle.get():
                pool.shutdown(cancel_futures=True)
        self._idle.put(None)  # for the parts that still wait: they learn that it is over

    def run(self, function: Callable[..., T], /, *values: Any) -> T:
        pool = self._idle.get()
        try:
            _refuse_more(self._is_over)
            pool = pool or self._hired()
            return pool.submit(function, *values).result()
        except BrokenProcessPool:
            pool = None
            _refuse_more(self._is_over)
            raise WorkerDiedError("a worker process died; its part is done again") from None
        finally:
            self._idle.put(pool)

    def _hired(self) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(1, spawn, _start, (self._settings,))
        self._pids.add(pool.submit(os.getpid).result())
        return pool


class _Dask:
    """A Dask cluster: the one at an address, or one of this machine for the time being."""

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
            found: T = future.result()
        except _distributed().scheduler.KilledWorker:
            raise WorkerDiedError("Dask's workers died over this part; it is done again") from None
        except ImportError as error:
            raise ConfigError(
                f"a Dask worker cannot import what it is to do ({error}); install the same "
                "filterscope there"
            ) from None
        except CancelledError:
            raise FilterscopeError("the Dask cluster has gone meanwhile; run again") from None
        return found

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
                self._held.callback(client.close)  # in whatever thread; a `with` is of one
                self._client = client
        return self._client


def _client(address: Any) -> Any:
    """Return a client of a Dask cluster that has a worker; raises ConfigError."""
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout=_CONNECT_SECONDS)
        client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:  # that nobody answers in time is an OSError
        raise ConfigError(
            f"runtime.dask_address: {address} is refused, no Dask scheduler with a worker answers "
            f"there ({error})"
        ) from None
    return client


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise ConfigError(
            "runtime.task_runner: dask is refused, it is not installed; "
            "install the extra filterscope[dask]"
        ) from None
    logging.getLogger("distributed").setLevel(logging.ERROR)  # importing it sets INFO
    return distributed


def _start(settings: RuntimeConfig) -> None:
    """Begin to work in a new process, which ends with the one that started it."""
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
    """Set TensorFlow up, once in a process; a Dask worker may have several threads."""
    global _is_prepared  # noqa: PLW0603
    with _lock:
        if not _is_prepared:
            from cnn.train import device

            device.prepare(settings)
            _is_prepared = True


def _prepared(settings: RuntimeConfig, function: Callable[..., T], *values: Any) -> T:
    _prepare(settings)
    return function(*values)
