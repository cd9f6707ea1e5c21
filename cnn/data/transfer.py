"""One file from one address: time limits, busy servers, and what an error means in words."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from cnn.errors import DataError, UnreachableError
from cnn.io import atomic

ATTEMPTS = 3
CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
ERRORS = (httpx.HTTPError, httpx.InvalidURL, ValueError, DataError)
GRACE_SECONDS = 1.0  # beyond a limit, for work that has to see by itself that it is over
FIRST_PAUSE_SECONDS = 1.0
_BUSY = {408, 425, 429}


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
