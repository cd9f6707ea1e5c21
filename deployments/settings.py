"""The operator's settings: from the environment, else from a settings file, else a default.

Prefect is not imported here, because it reads its own settings when it is imported.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
POOL = "filterscope"
FILE_VARIABLE = "FILTERSCOPE_SETTINGS"
FILE = ROOT / "deployments" / "filterscope.env"
_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # bind address: address to connect to
_WEBHOOK, _DATABASE = "FILTERSCOPE_WEBHOOK_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL"
_PASSWORD, _OF_CLIENTS = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"
# Secrets that a part does not need and does not get.
SECRETS = {
    "server": (_WEBHOOK,),
    "worker": (_WEBHOOK, _DATABASE, _PASSWORD),
    "pages": (_WEBHOOK, _DATABASE, _OF_CLIENTS),
}
_DEFAULTS = {
    "PREFECT_SERVER_API_HOST": "127.0.0.1",
    "PREFECT_SERVER_API_PORT": "4200",
    "FILTERSCOPE_PAGES_HOST": "127.0.0.1",
    "FILTERSCOPE_PAGES_PORT": "4201",
    "FILTERSCOPE_STORE": "artifacts",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "cnn",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds; the minimum that Prefect accepts
    # Several minutes of retries, while SQLite is busy or the server restarts.
    "PREFECT_CLIENT_MAX_RETRIES": "8",
    # In memory, the slots would be lost when the server restarts, and their runs stopped.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "10",  # until a free one is seen
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
}


@dataclass(frozen=True)
class Settings:
    """The complete settings; environment: the variables with which the parts are started."""

    environment: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        """Return a setting, "" if it is not set."""
        return self.environment.get(name, "")

    @property
    def api(self) -> str:
        """Address of Prefect's API."""
        return self["PREFECT_API_URL"]

    @property
    def pages(self) -> str:
        """Address at which this machine reaches the report server."""
        return address(self["FILTERSCOPE_PAGES_HOST"], self["FILTERSCOPE_PAGES_PORT"])

    @property
    def server(self) -> str:
        """Address at which this machine reaches the server that it starts itself."""
        return address(self["PREFECT_SERVER_API_HOST"], self["PREFECT_SERVER_API_PORT"])

    @property
    def store(self) -> Path:
        """Root of the artifact store, absolute."""
        return Path(self["FILTERSCOPE_STORE"])

    @property
    def state(self) -> Path:
        """Folder of the process ids and the logs."""
        home = self["PREFECT_HOME"] or "~/.prefect"
        return Path(home).expanduser().absolute() / "filterscope"

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password for the API, None if it has no password."""
        user, _, password = self[_OF_CLIENTS].partition(":")
        return (user, password) if user else None

    def for_part(self, name: str) -> dict[str, str]:
        """Return the environment of a part, without the secrets that it does not need."""
        return {k: v for k, v in self.environment.items() if k not in SECRETS[name]}


def read() -> Settings:
    """Return the settings of this installation; raises ConfigError."""
    given = os.environ.get(FILE_VARIABLE)
    path = Path(given or FILE)
    if given and not path.is_file():
        raise ConfigError(f"{FILE_VARIABLE}: there is no file {path}")
    values = parse(path.read_text(encoding="utf-8"), path) if path.is_file() else {}
    return complete({**values, **{k: v for k, v in os.environ.items() if v}})


def parse(text: str, path: Path) -> dict[str, str]:
    """Return the values of a settings file of KEY=VALUE lines, like systemd's EnvironmentFile."""
    values = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if not line or line[0] in "#;":
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(f"{path}, line {number}: expected KEY=VALUE")
        name, value = match[1], match[2].strip()
        if value[:1] in ("'", '"'):
            if len(value) < 2 or value[-1] != value[0]:
                raise ConfigError(f"{path}, line {number}: {name} has an unclosed quote")
            value = value[1:-1]
        values[name] = value
    return values


def complete(given: Mapping[str, str]) -> Settings:
    """Return the settings, completed with defaults and derived addresses; raises ConfigError."""
    values = {**_DEFAULTS, **given}
    for name in ("PREFECT_SERVER_API_PORT", "FILTERSCOPE_PAGES_PORT"):
        if not (values[name].isdecimal() and 0 < int(values[name]) < 65_536):
            raise ConfigError(f"{name}: {values[name]!r} is refused; expected a port, 1 to 65535")
    values["FILTERSCOPE_STORE"] = str(_absolute(values["FILTERSCOPE_STORE"]))
    settings = Settings(values)
    values.setdefault("PREFECT_API_URL", f"{settings.server}/api")
    values.setdefault("PREFECT_SERVER_UI_API_URL", values["PREFECT_API_URL"])
    values.setdefault("FILTERSCOPE_PAGES_URL", settings.pages)
    if password := values.get(_PASSWORD):
        _check_password(password)
        values.setdefault(_OF_CLIENTS, password)
    return settings


def _check_password(password: str) -> None:
    """Raise ConfigError for a password that Prefect's server cannot compare, without showing it."""
    user, _, rest = password.partition(":")
    if not (user and rest and password.isascii() and password.isprintable()):
        raise ConfigError(f"{_PASSWORD} is refused; expected user:password in printable ASCII")


def address(host: str, port: str) -> str:
    """Return the URL at which this machine reaches a server that listens on a host and port."""
    reached = _ANY_ADDRESS.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{reached}:{port}"


def for_deploying() -> dict[str, Any]:
    """Return the values for prefect.yaml's placeholders; a build step of `prefect deploy`."""
    settings = read()
    folder = settings["FILTERSCOPE_DATA_FOLDER"]
    return {
        "root": str(ROOT),
        "store": str(settings.store),
        "pages": settings["FILTERSCOPE_PAGES_URL"],
        "data_folder": str(_absolute(folder or "data")),
        "has_data_folder": bool(folder),
    }


def _absolute(path: str) -> Path:
    """Return an absolute path; a relative one is taken from the checkout's root."""
    return (ROOT / Path(path).expanduser()).absolute()
