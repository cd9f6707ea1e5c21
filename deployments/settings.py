"""The operator's settings: from the environment, else from one file, else a default.

Nothing but the standard library is imported here: every command of the operator begins so.
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
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # listened on, reached at
_WEBHOOK, _DATABASE = "FILTERSCOPE_WEBHOOK_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL"
_PASSWORD, _OF_CLIENTS = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"
# What each part has no need to know.
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
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds, the least that Prefect takes
    # Kept in memory, slots would be lost with a server that restarts, and their runs ended.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "10",  # until a freed one is seen
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
}


@dataclass(frozen=True)
class Settings:
    """All settings, complete; `environment` is what the parts are started with."""

    environment: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        """Return a setting, "" where there is none."""
        return self.environment.get(name, "")

    @property
    def api(self) -> str:
        """Address of Prefect's API."""
        return self["PREFECT_API_URL"]

    @property
    def pages(self) -> str:
        """Address at which this machine reaches the page server."""
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
        """User and password of the API, where it asks for them."""
        user, _, password = self[_OF_CLIENTS].partition(":")
        return (user, password) if user else None

    def for_part(self, name: str) -> dict[str, str]:
        """Return the environment of a part: all but the secrets of others."""
        return {k: v for k, v in self.environment.items() if k not in SECRETS[name]}


def read() -> Settings:
    """Return the settings of this installation; raises ConfigError."""
    named = os.environ.get(FILE_VARIABLE)
    path = Path(named or FILE)
    if named and not path.is_file():
        raise ConfigError(f"{FILE_VARIABLE}: there is no file {path}")
    values = parse(path.read_text(encoding="utf-8"), path) if path.is_file() else {}
    return complete({**values, **{k: v for k, v in os.environ.items() if v}})


def parse(text: str, path: Path) -> dict[str, str]:
    """Return the values of a settings file: KEY=VALUE lines, as systemd reads them too."""
    values = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if not line or line[0] in "#;":
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise ConfigError(f"{path}, line {number}: a line KEY=VALUE is expected")
        name, value = found[1], found[2].strip()
        if value[:1] in ("'", '"'):
            if len(value) < 2 or value[-1] != value[0]:
                raise ConfigError(f"{path}, line {number}: {name} has a quote that is not closed")
            value = value[1:-1]
        values[name] = value
    return values


def complete(given: Mapping[str, str]) -> Settings:
    """Return settings in which every one that the parts need has its value."""
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
    """Raise ConfigError for what Prefect's server could not compare; the text stays secret."""
    user, _, rest = password.partition(":")
    if not (user and rest and password.isascii() and password.isprintable()):
        raise ConfigError(f"{_PASSWORD} is refused; expected user:password in ASCII letters")


def address(host: str, port: str) -> str:
    """Return the address at which this machine reaches what listens on a host and a port."""
    reached = _ANY_ADDRESS.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{reached}:{port}"


def for_deploying() -> dict[str, Any]:
    """Return what prefect.yaml fills in: a build step of `prefect deploy`."""
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
    """Return a path; a relative one is that of the checkout's root."""
    return (ROOT / Path(path).expanduser()).absolute()
