"""The databases that Prefect's server can use, each real and empty."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

Database = Literal["sqlite", "postgresql"]
_USER = "postgres"  # the server refuses to run as root


@contextmanager
def database(kind: Database) -> Iterator[dict[str, str]]:
    """Yield the setting that selects a database for the server; none for SQLite, the default."""
    if kind == "sqlite":
        yield {}
    else:
        with _postgresql() as url:
            yield {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url}


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def _postgresql() -> Iterator[str]:
    """Start PostgreSQL in a temporary folder; yields its address for Prefect."""
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    user = _unprivileged(folder)
    data, port = folder / "data", free_port()
    words = ("-A", "trust", "-U", "prefect", "--encoding=UTF8", "--locale=C.UTF-8")
    initdb = [_program("initdb"), "-D", data, *words]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)
    listen = ("-h", "127.0.0.1", "-p", str(port), "-k", str(folder))
    with (folder / "log").open("wb") as log:
        command = [_program("postgres"), "-D", data, *listen]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **user)
    try:
        _wait(port, process, folder / "log")
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)  # closes open connections and ends the server
        process.wait(60)
        shutil.rmtree(folder)


def _unprivileged(folder: Path) -> dict[str, Any]:
    """Return arguments that start a process as another user than root, who owns the folder."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(_USER)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _program(name: str) -> Path:
    """Return a program of the newest installed PostgreSQL, which Debian does not put on PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    on_path = shutil.which(name)
    assert found or on_path, "PostgreSQL is not installed; .ci/run installs it"
    return found[-1] if found else Path(str(on_path))


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, f"PostgreSQL ended:\n{log.read_text()}"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("PostgreSQL did not start within 60 s")
