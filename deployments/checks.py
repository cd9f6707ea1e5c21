"""What must hold before a part starts; each failure is said with what to do."""

import asyncio
import os
import socket
from pathlib import Path

import httpx
from prefect import __version__ as prefect_version

from cnn.errors import ConfigError, ServerError
from cnn.store.store import Store
from deployments.api import ask
from deployments.settings import Settings

_DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
_SECONDS = 10.0


def store(root: Path) -> None:
    """Raise StoreUnwritableError where artifacts could not be written."""
    Store(root).ensure_writable()


def state(folder: Path) -> None:
    """Make the folder of logs and process ids; raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise ConfigError(
            f"{folder}: logs and process ids cannot be written there ({error.strerror}); "
            "set PREFECT_HOME to a folder of your own"
        ) from None


def port(host: str, number: str, setting: str) -> None:
    """Raise ConfigError where something else listens, or nothing can."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, int(number), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(where)
    except OSError as error:
        raise ConfigError(
            f"port {number} of {host} cannot be listened on ({error.strerror}); "
            f"stop the program that holds it, or set {setting} to another port"
        ) from None


def database(settings: Settings) -> None:
    """Raise ServerError where the PostgreSQL server that is set does not let us in."""
    if not settings[_DATABASE].startswith("postgresql"):
        return
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(settings[_DATABASE])
    except (ArgumentError, ValueError):  # whose text has the password in it
        raise ConfigError(
            f"{_DATABASE} is refused; expected postgresql+asyncpg://user:password@host:5432/name"
        ) from None
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        asyncio.run(_connect(dsn))
    except Exception as error:
        raise ServerError(
            f"database: PostgreSQL at {url.host}:{url.port or 5432}, database {url.database!r}, "
            f"user {url.username!r}, does not let us in ({error or type(error).__name__}); "
            f"is it started? is {_DATABASE} right?"
        ) from None


async def _connect(dsn: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(dsn, timeout=_SECONDS)
    await connection.close()


def api(settings: Settings) -> None:
    """Raise ServerError where the API cannot be reached, lets nobody in, or is of another version.

    Client and server must be of one minor version.
    """
    try:
        answer = ask(settings, "GET", "/admin/version", seconds=_SECONDS)
    except httpx.HTTPError as error:
        raise ServerError(
            f"Prefect's API at {settings.api} cannot be reached ({error}); "
            "is the server started? is PREFECT_API_URL right?"
        ) from None
    if answer.status_code in (401, 403):
        raise ServerError(
            f"Prefect's API at {settings.api} lets only those in who know its password; "
            "set PREFECT_API_AUTH_STRING, or PREFECT_SERVER_API_AUTH_STRING where the server runs"
        )
    found = _version(answer)
    if found.split(".")[:2] != prefect_version.split(".")[:2]:
        raise ServerError(
            f"Prefect's API at {settings.api} is of version {found or 'unknown'}; this "
            f"installation has {prefect_version}: bring both to one version, or set "
            "PREFECT_API_URL to another server"
        )


def _version(answer: httpx.Response) -> str:
    """Return the version that an API answers with, "" where it is no such API."""
    try:
        found = answer.json() if answer.is_success else ""
    except ValueError:
        return ""
    return found if isinstance(found, str) else ""
