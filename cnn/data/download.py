"""Fetch files from several addresses into one folder and keep only verified ones.

Several processes may fetch into the folder at once: one downloads while the others wait.
They lock the folder itself, with a kernel lock that ends with its process, even a killed one.
"""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from cnn.data import idx
from cnn.errors import DataError, UnreachableError
from cnn.io import atomic

log = logging.getLogger(__name__)

ATTEMPTS = 3
CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
ERRORS = (httpx.HTTPError, httpx.InvalidURL, ValueError, DataError)
GRACE_SECONDS = 1.0  # past a limit, so that the work can still report its own timeout
FIRST_PAUSE_SECONDS = 1.0
_BUSY = {408, 425, 429}
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Deadline:
    """A moment after which no new attempt starts."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds left, 0 or more."""
        return max(0.0, self.at - time.monotonic())


@dataclass(frozen=True)
class Wanted:
    """A file to fetch: `verify` raises DataError if it is wrong; it has at most `most_bytes`."""

    verify: Callable[[Path], object]
    most_bytes: int


def fetch(
    wanted: Mapping[str, Wanted], addresses: Sequence[str], folder: Path, deadline: Deadline
) -> dict[str, Path]:
    """Return the path of every file by name; fetch those that are missing or not verified.

    addresses: base URLs, tried in turn. Raises UnreachableError, which lists the answer of
    every address, and StoreUnwritableError if the disk fails.
    """
    with atomic.disk_faults("a download", folder):
        folder.mkdir(parents=True, exist_ok=True)
        atomic.sweep(folder)
        missing = [name for name in wanted if problem(folder / name, wanted[name])]
        if missing:
            with _folder_lock(folder, Deadline.after(deadline.left / 2)), client() as http:
                for name in missing:
                    _fetch_one(http, folder / name, wanted[name], addresses, deadline)
    return {name: folder / name for name in wanted}


def problem(path: Path, wanted: Wanted) -> str:
    """Return why a file cannot be used, or "" if it exists and passes verification."""
    if not path.exists():
        return f"{path}: no such file"
    try:
        wanted.verify(path)
    except DataError as error:
        return str(error)
    return ""


def verify(path: Path, digest: str) -> str:
    """Return the SHA-256 of a file's unpacked bytes; raise DataError if it is not `digest`."""
    actual = idx.digest(path)
    if actual != digest:
        raise DataError(
            f"{path}: wrong checksum: SHA-256 of the unpacked bytes is {actual}, expected {digest}"
        )
    return actual


@contextmanager
def _folder_lock(folder: Path, limit: Deadline) -> Iterator[None]:
    """Hold the folder's lock; go on without it if it is not free within the limit."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if _locked_by_another(handle):
            log.info("another process is fetching into %s; waiting for it", folder)
            while limit.left and _locked_by_another(handle):
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(handle)


def _locked_by_another(handle: int) -> bool:
    """Try to take the lock; return whether another process holds it.

    Without file locking, as on some network disks, the lock counts as taken by us.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _fetch_one(
    http: httpx.Client,
    path: Path,
    wanted: Wanted,
    addresses: Sequence[str],
    deadline: Deadline,
) -> None:
    """Fetch one file unless another process already has; set a bad one aside first."""
    fault = problem(path, wanted)
    if not fault:
        return
    with (
        suppress(FileNotFoundError),  # the usual case: no file yet
        atomic.disk_faults(f"{fault}; its replacement", path.parent),
    ):
        path.replace(_aside(path))
        log.warning("%s; the file is set aside and fetched again", fault)
    answers = []
    for i, address in enumerate(addresses):
        url = address + path.name
        # A slow server must leave time for the others.
        limit = Deadline.after(deadline.left / (len(addresses) - i))
        try:
            transfer(http, url, wanted, path, limit)
        except ERRORS as error:
            answers.append(f"  {url}: {reason(error)}")
            continue
        log.info("fetched %s from %s", path.name, address)
        return
    raise _unreachable(path, wanted, answers)


def _unreachable(path: Path, wanted: Wanted, answers: Sequence[str]) -> UnreachableError:
    lines = [f"{path.name} could not be fetched from any of {len(answers)} addresses:", *answers]
    if _aside(path).exists():
        lines.append(f"An earlier file was set aside: {problem(_aside(path), wanted)}")
    lines.append(
        "Check the network, or put the files in a folder and use "
        "--data.source folder --data.path FOLDER"
    )
    return UnreachableError("\n".join(lines))


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.bad")


def client() -> httpx.Client:
    """Return an HTTP client that uses the environment's proxies and certificates.

    Raises UnreachableError if they cannot be used.
    """
    try:
        return httpx.Client(follow_redirects=True)
    except (ImportError, ValueError, OSError) as error:
        raise UnreachableError(
            f"the environment's proxies or certificates cannot be used ({error}); check "
            "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
        ) from None


def transfer(http: httpx.Client, url: str, wanted: Wanted, target: Path, limit: Deadline) -> None:
    """Download a file, verify it, then give it its final name; retry if the server is busy.

    Raises one of ERRORS, which `reason` describes; StoreUnwritableError or OSError if the
    disk fails.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _abandoned_after(limit, lambda: _attempt(http, url, wanted, target, limit))
            return
        except httpx.HTTPError as error:
            pause = _pause(error, attempt)
            if attempt == ATTEMPTS or pause is None or pause >= limit.left:
                raise
            time.sleep(pause)


def reason(error: Exception) -> str:
    """Return one of ERRORS as text, with the proxy that the environment sets, if any."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code} {error.response.reason_phrase}".strip()
    text = str(error) or type(error).__name__
    return text + _proxy(str(error.request.url)) if isinstance(error, _CONNECTION_ERRORS) else text


_CONNECTION_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)


def _abandoned_after(limit: Deadline, work: Callable[[], None]) -> None:
    """Run the work in a thread and abandon it once the limit has passed.

    No other timeout covers a DNS lookup when the name server does not answer.
    """
    done: Future[None] = Future()

    def record() -> None:
        try:
            work()
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    Thread(target=record, daemon=True).start()
    if wait([done], limit.left + GRACE_SECONDS).not_done:
        raise httpx.TimeoutException("no answer in time")
    done.result()


def _attempt(http: httpx.Client, url: str, wanted: Wanted, target: Path, limit: Deadline) -> None:
    with (
        _answer(http, url, limit) as response,
        atomic.temporary_file(target) as part,
        atomic.disk_faults(target.name, target.parent),  # inside, so that the part counts as used
    ):
        _write(response, part, wanted.most_bytes, limit)
        _verify(part, wanted)
        part.replace(target)
    atomic.flush(target.parent)


@contextmanager
def _answer(http: httpx.Client, url: str, limit: Deadline) -> Iterator[httpx.Response]:
    """Yield the response; raise httpx.HTTPStatusError unless its status is a success."""
    if not limit.left:
        raise httpx.TimeoutException("no time left")
    connect, read = (min(seconds, limit.left) for seconds in (CONNECT_SECONDS, READ_SECONDS))
    timeout = httpx.Timeout(read, connect=connect)
    with http.stream("GET", url, timeout=timeout) as response:
        response.raise_for_status()
        yield response


def _write(response: httpx.Response, part: Path, most_bytes: int, limit: Deadline) -> None:
    n_bytes = 0
    with part.open("wb") as stream:
        for chunk in response.iter_bytes():
            n_bytes += len(chunk)
            if n_bytes > most_bytes:
                raise DataError(
                    f"the body is longer than {most_bytes:,} bytes, the most this file can have"
                )
            stream.write(chunk)
            if not limit.left:
                raise httpx.ReadTimeout(f"too slow: only {n_bytes:,} bytes arrived in time")
    atomic.flush(part)


def _verify(part: Path, wanted: Wanted) -> None:
    """Verify a downloaded body; keep the temporary file's name out of the error."""
    try:
        wanted.verify(part)
    except DataError as error:
        raise DataError(str(error).removeprefix(f"{part}: ")) from None


def _pause(error: httpx.HTTPError, attempt: int) -> float | None:
    """Return the seconds to wait before asking the same address again, or None to give up."""
    usual = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        retry_after = error.response.headers.get("Retry-After", "")
        if status not in _BUSY and status < 500:
            return None
        return float(retry_after) if retry_after.isdecimal() else usual
    return usual if isinstance(error, httpx.ReadError | httpx.RemoteProtocolError) else None


def _proxy(url: str) -> str:
    """Return a note in brackets on the proxy that the environment sets for a URL, or ""."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme) or getproxies().get("all")
    if not proxy or proxy_bypass(parts.netloc):
        return ""
    return f" (the environment sends this through the proxy {proxy.rpartition('@')[2]})"
