"""Fetches files from several addresses into one folder, and keeps only what was verified.

Several processes may do so at once: one fetches, the others wait for it. The lock is the
kernel's, on the folder itself: it ends with its process, however that ends, and leaves nothing.
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
GRACE_SECONDS = 1.0  # beyond a limit, for work that has to see by itself that it is over
FIRST_PAUSE_SECONDS = 1.0
_BUSY = {408, 425, 429}
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Deadline:
    """A moment after which no further attempt is made."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds that are left, 0 or more."""
        return max(0.0, self.at - time.monotonic())


@dataclass(frozen=True)
class Wanted:
    """One file: `verify` raises DataError unless it is right; a body has `most_bytes` at most."""

    verify: Callable[[Path], object]
    most_bytes: int


def fetch(
    wanted: Mapping[str, Wanted], addresses: Sequence[str], folder: Path, deadline: Deadline
) -> dict[str, Path]:
    """Return the path of every file by name, fetched where no verified one lies in the folder.

    addresses: folders on the web, tried in turn. Raises UnreachableError listing every
    address with what it answered, StoreUnwritableError where the disk fails.
    """
    with atomic.disk_faults("a download", folder):
        folder.mkdir(parents=True, exist_ok=True)
        atomic.sweep(folder)
        missing = [name for name in wanted if problem(folder / name, wanted[name])]
        if missing:
            with _alone(folder, Deadline.after(deadline.left / 2)), client() as through:
                for name in missing:
                    _complete(through, folder / name, wanted[name], addresses, deadline)
    return {name: folder / name for name in wanted}


def problem(path: Path, wanted: Wanted) -> str:
    """Return why a file cannot be used, or "" where it is there and verified."""
    if not path.exists():
        return f"{path}: there is no such file"
    try:
        wanted.verify(path)
    except DataError as error:
        return str(error)
    return ""


def verify(path: Path, digest: str) -> str:
    """Return the SHA-256 of a file's unpacked bytes; raises DataError unless it is `digest`."""
    found = idx.digest(path)
    if found != digest:
        raise DataError(
            f"{path}: wrong checksum: SHA-256 of the unpacked bytes is {found}, expected {digest}"
        )
    return found


@contextmanager
def _alone(folder: Path, limit: Deadline) -> Iterator[None]:
    """Hold the folder's lock, or go on without it where it is not to be had within the limit."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if _is_taken(handle):
            log.info("another process fetches into %s; waiting for it", folder)
            while limit.left and _is_taken(handle):
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(handle)


def _is_taken(handle: int) -> bool:
    """Return whether another process has the lock; if not, it is ours, where locks can be had."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _complete(
    through: httpx.Client,
    path: Path,
    wanted: Wanted,
    addresses: Sequence[str],
    deadline: Deadline,
) -> None:
    """Fetch one file, unless another process did so meanwhile; a bad one is set aside first."""
    fault = problem(path, wanted)
    if not fault:
        return
    with (
        suppress(FileNotFoundError),  # the usual case: there is none yet
        atomic.disk_faults(f"{fault}; its replacement", path.parent),
    ):
        path.replace(_aside(path))
        log.warning("%s; it is set aside and fetched again", fault)
    answers = []
    for i, address in enumerate(addresses):
        url = address + path.name
        # A server that drips must leave time for the others.
        limit = Deadline.after(deadline.left / (len(addresses) - i))
        try:
            transfer(through, url, wanted, path, limit)
        except ERRORS as error:
            answers.append(f"  {url}: {reason(error)}")
            continue
        log.info("fetched %s from %s", path.name, address)
        return
    raise _unreachable(path, wanted, answers)


def _unreachable(path: Path, wanted: Wanted, answers: Sequence[str]) -> UnreachableError:
    lines = [f"{path.name} could not be fetched from any of {len(answers)} addresses:", *answers]
    if _aside(path).exists():
        lines.append(f"An earlier file was set aside. {problem(_aside(path), wanted)}")
    lines.append(
        "Check the network, or put the files into a folder and use "
        "--data.source folder --data.path FOLDER"
    )
    return UnreachableError("\n".join(lines))


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.bad")


def client() -> httpx.Client:
    """Return what sends requests, as the environment's proxies and certificates want it.

    Raises UnreachableError where those cannot be used.
    """
    try:
        return httpx.Client(follow_redirects=True)
    except (ImportError, ValueError, OSError) as error:
        raise UnreachableError(
            f"the environment's proxies or certificates cannot be used ({error}); look at "
            "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
        ) from None


def transfer(
    through: httpx.Client, url: str, wanted: Wanted, target: Path, limit: Deadline
) -> None:
    """Bring a file to its final name once it is verified; busy servers are asked again.

    Raises one of ERRORS, which `reason` puts into words; StoreUnwritableError or OSError
    where the disk fails.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _left_behind_at(limit, lambda: _attempt(through, url, wanted, target, limit))
            return
        except httpx.HTTPError as error:
            pause = _pause(error, attempt)
            if attempt == ATTEMPTS or pause is None or pause >= limit.left:
                raise
            time.sleep(pause)


def reason(error: Exception) -> str:
    """Return what one of ERRORS means; a proxy that the environment names is part of it."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code} {error.response.reason_phrase}".strip()
    words = str(error) or type(error).__name__
    return words + _proxy(str(error.request.url)) if isinstance(error, _WithRequest) else words


_WithRequest = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)


def _left_behind_at(limit: Deadline, work: Callable[[], None]) -> None:
    """Do the work in a thread, and go on without it after the limit.

    Nothing else ends the search for a host's name where no name server answers.
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
        raise httpx.TimeoutException("no answer in the time there was")
    done.result()


def _attempt(
    through: httpx.Client, url: str, wanted: Wanted, target: Path, limit: Deadline
) -> None:
    with (
        _answer(through, url, limit) as response,
        atomic.temporary_file(target) as part,
        atomic.disk_faults(target.name, target.parent),  # says what is free beside the part
    ):
        _write(response, part, wanted.most_bytes, limit)
        _verify(part, wanted)
        part.replace(target)
    atomic.flush(target.parent)


@contextmanager
def _answer(through: httpx.Client, url: str, limit: Deadline) -> Iterator[httpx.Response]:
    """Yield a good answer's response."""
    if not limit.left:
        raise httpx.TimeoutException("no time was left")
    connect, read = (min(seconds, limit.left) for seconds in (CONNECT_SECONDS, READ_SECONDS))
    timeout = httpx.Timeout(read, connect=connect)
    with through.stream("GET", url, timeout=timeout) as response:
        response.raise_for_status()
        yield response


def _write(response: httpx.Response, part: Path, most_bytes: int, limit: Deadline) -> None:
    n_bytes = 0
    with part.open("wb") as stream:
        for chunk in response.iter_bytes():
            n_bytes += len(chunk)
            if n_bytes > most_bytes:
                raise DataError(
                    f"the body is longer than {most_bytes:,} bytes, which no such file is"
                )
            stream.write(chunk)
            if not limit.left:
                raise httpx.ReadTimeout(f"too slow: {n_bytes:,} bytes in the time there was")
    atomic.flush(part)


def _verify(part: Path, wanted: Wanted) -> None:
    """Verify a body; the error does not name the temporary file."""
    try:
        wanted.verify(part)
    except DataError as error:
        raise DataError(str(error).removeprefix(f"{part}: ")) from None


def _pause(error: httpx.HTTPError, attempt: int) -> float | None:
    """Return the seconds to wait before the same address is asked again, None for never."""
    usual = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)
    if isinstance(error, httpx.HTTPStatusError):
        status, asked = error.response.status_code, error.response.headers.get("Retry-After", "")
        if status not in _BUSY and status < 500:
            return None
        return float(asked) if asked.isdecimal() else usual
    return usual if isinstance(error, httpx.ReadError | httpx.RemoteProtocolError) else None


def _proxy(url: str) -> str:
    """Return the proxy that the environment names for an address, in brackets, or ""."""
    place = urlsplit(url)
    proxy = getproxies().get(place.scheme) or getproxies().get("all")
    if not proxy or proxy_bypass(place.netloc):
        return ""
    return f" (the environment sends this through the proxy {proxy.rpartition('@')[2]})"
