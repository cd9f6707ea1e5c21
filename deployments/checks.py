"""Checks before a part starts; every error says what to do."""

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
    """Raise StoreUnwritableError if artifacts cannot be written."""
    Store(root).ensure_writable()


def state(folder: Path) -> None:
    """Create the folder of logs and process ids; raises ConfigError if it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise ConfigError(
            f"{folder}: logs and process ids cannot be written there ({error.strerror}); "
            "set PREFECT_HOME to a folder that you own"
        ) from None


def port(host: str, number: str, setting: str) -> None:
    """Raise ConfigError if the port is in use or cannot be bound."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, int(number), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
    except OSError as error:
        raise ConfigError(
            f"port {number} of {host} is not available ({error.strerror}); "
            f"stop the program that uses it, or set {setting} to another port"
        ) from None


def database(settings: Settings) -> None:
    """Raise ServerError if the configured PostgreSQL server does not accept a connection."""
    if not settings[_DATABASE].startswith("postgresql"):
        return
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(settings[_DATABASE])
    except (ArgumentError, ValueError):  # its text contains the password
        raise ConfigError(
            f"{_DATABASE} is refused; expected postgresql+asyncpg://user:password@host:5432/name"
        ) from None
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        asyncio.run(_connect(dsn))
    except Exception as error:
        raise ServerError(
            f"database: cannot connect to PostgreSQL at {url.host}:{url.port or 5432}, database "
            f"{url.database!r}, user {url.username!r} ({error or type(error).__name__}); "
            f"is it running? is {_DATABASE} right?"
        ) from None


async def _connect(dsn: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(dsn, timeout=_SECONDS)
    await connection.close()


def api(settings: Settings) -> None:
    """Raise ServerError if the API cannot be reached, needs a password, or has another version.

    Client and server must have the same minor version.
    """
    try:
        answer = ask(settings, "GET", "/admin/version", seconds=_SECONDS)
    except httpx.HTTPError as error:
        raise ServerError(
            f"Prefect's API at {settings.api} cannot be reached ({error}); "
            "is the server running? is PREFECT_API_URL right?"
        ) from None
    if answer.status_code in (401, 403):
        raise ServerError(
            f"Prefect's API at {settings.api} requires the right password; set "
            "PREFECT_API_AUTH_STRING, or PREFECT_SERVER_API_AUTH_STRING on the server's machine"
        )
    version = _version(answer)
    if version.split(".")[:2] != prefect_version.split(".")[:2]:
        raise ServerError(
            f"Prefect's API at {settings.api} has version {version or 'unknown'}, this "
            f"installation has {prefect_version}; install the same version on both, or set "
            "PREFECT_API_URL to another server"
        )


def _version(answer: httpx.Response) -> str:
    """Return the version in an API's response; "" if it is not Prefect's API."""
    try:
        version = answer.json() if answer.is_success else ""
    except ValueError:
        return ""
    return version if isinstance(version, str) else ""
