"""Fetches files from several addresses, and keeps only what was verified.

A body gets its final name after its unpacked bytes have the known SHA-256; until then
it has a unique temporary name in the same folder.
"""

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from cnn.data import idx
from cnn.errors import DataError, StoreUnwritableError, UnreachableError

log = logging.getLogger(__name__)

ATTEMPTS = 3
CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
_BUSY = {408, 425, 429, 500, 502, 503, 504}
Progress = Callable[[str, int, int | None], None]


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


def fetch(
    digests: Mapping[str, str],
    addresses: Sequence[str],
    folder: Path,
    deadline: Deadline,
) -> dict[str, Path]:
    """Return the path of every file, fetched where no verified one lies in the folder.

    digests: SHA-256 of the unpacked bytes by file name. addresses: folders on the web,
    tried in turn. Raises UnreachableError listing every address with what it answered.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnwritableError(f"{folder}: cannot be made ({error.strerror})") from None
    return {
        name: _present(folder / name, digest)
        or _fetch_one(name, digest, addresses, folder, deadline)
        for name, digest in digests.items()
    }


def present(digests: Mapping[str, str], folder: Path) -> bool:
    """Return whether every file lies in the folder, verified; nothing is changed."""
    try:
        for name, digest in digests.items():
            verify(folder / name, digest)
    except DataError:
        return False
    return True


def verify(path: Path, digest: str) -> None:
    """Raise DataError unless the unpacked bytes of a file have this SHA-256."""
    found = idx.digest(path)
    if found != digest:
        raise DataError(
            f"{path}: wrong checksum: SHA-256 of the unpacked bytes is {found}, expected {digest}"
        )


def _verify_body(part: Path, digest: str) -> None:
    """Verify a fetched body; the error does not name the temporary file."""
    try:
        verify(part, digest)
    except DataError as error:
        raise DataError(str(error).removeprefix(f"{part}: ")) from None


def _present(path: Path, digest: str) -> Path | None:
    """Return the path if a verified file lies there; a bad one is set aside."""
    if not path.exists():
        return None
    try:
        verify(path, digest)
    except DataError as error:
        log.warning("%s; it is set aside and fetched again", error)
        with suppress(FileNotFoundError):  # another process was faster
            path.replace(path.with_name(path.name + ".bad"))
        return None
    return path


def _fetch_one(
    name: str, digest: str, addresses: Sequence[str], folder: Path, deadline: Deadline
) -> Path:
    answers = []
    for i, address in enumerate(addresses):
        url = address + name
        # A server that drips must leave time for the others.
        limit = Deadline.after(deadline.left / (len(addresses) - i))
        try:
            _fetch_from(url, digest, folder / name, limit)
        except (httpx.HTTPError, httpx.InvalidURL, DataError) as error:
            answers.append(f"  {url}: {_reason(error)}")
            continue
        log.info("fetched %s from %s", name, address)
        return folder / name
    raise UnreachableError(
        "\n".join(
            [
                f"{name} could not be fetched from any of {len(addresses)} addresses:",
                *answers,
                "Check the network, or put the files into a folder and use "
                "--data.source folder --data.path FOLDER",
            ]
        )
    )


def _fetch_from(url: str, digest: str, target: Path, deadline: Deadline) -> None:
    """Fetch one address to its final name; busy answers are tried again."""
    for attempt in range(1, ATTEMPTS + 1):
        if not deadline.left:
            raise httpx.ReadTimeout("no time left")
        try:
            with _temporary(target) as part:
                _stream(url, part, deadline)
                _verify_body(part, digest)
                part.replace(target)
            return
        except httpx.HTTPError as error:
            if attempt == ATTEMPTS or not _worth_another(error):
                raise
            time.sleep(min(0.5 * 2**attempt, deadline.left))


def _stream(url: str, part: Path, deadline: Deadline) -> None:
    connect, read = (min(limit, deadline.left) for limit in (CONNECT_SECONDS, READ_SECONDS))
    timeout = httpx.Timeout(read, connect=connect)
    with (
        httpx.stream("GET", url, timeout=timeout, follow_redirects=True) as response,
        part.open("wb") as stream,
    ):
        response.raise_for_status()
        for chunk in response.iter_raw():
            stream.write(chunk)
            if not deadline.left:
                raise httpx.ReadTimeout("no time left")
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Yield a new path beside the target; what is left there is removed."""
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _worth_another(error: httpx.HTTPError) -> bool:
    """Return whether the same address may answer better: busy, reset or slow, not refused."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _BUSY
    return isinstance(error, httpx.ReadError | httpx.RemoteProtocolError)


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code} {error.response.reason_phrase}".strip()
    return str(error) or type(error).__name__
