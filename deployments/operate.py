"""The operator's commands: `make up`, `down`, `status`, `deploy` and `automations` call them."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from cnn.errors import ConfigError, FilterscopeError, ServerError
from cnn.io import atomic
from deployments import settings as operator
from deployments.parts import Part, all_parts
from deployments.settings import ROOT, Settings

_START_SECONDS = 240.0  # a server on a busy machine takes a minute to migrate its database
_END_SECONDS = 20.0
_NOT_RUNNING = 3  # the exit code that init scripts use for this


def up(settings: Settings, names: Sequence[str]) -> int:
    """Start the parts that are not running, register the deployments, and print the status."""
    from deployments import checks

    parts = _named(all_parts(settings), names)
    checks.state(settings.state)
    checks.store(settings.store)
    with atomic.exclusive_lock(settings.state / "lock"):
        _check_ports(settings, parts)
        for part in parts:
            if part.name == "server":
                _start_server(settings, part)
            else:
                _start(settings, part)
    return status(settings, names)


def down(settings: Settings, names: Sequence[str]) -> int:
    """Stop the parts and every process that they started; runs in progress are cancelled first."""
    from deployments import cancelling

    if not settings.state.is_dir():
        return 0
    with atomic.exclusive_lock(settings.state / "lock"):
        for part in reversed(_named(all_parts(settings), names)):
            if part.name == "worker":
                cancelling.cancel_runs(settings, part.process, _tell)
            if part.process.tree() or part.process.pid():
                part.process.end(_END_SECONDS)
                _tell(f"{part.name}: stopped")
            else:
                _tell(f"{part.name}: was not running")
    return 0


def status(settings: Settings, names: Sequence[str]) -> int:
    """Print for each part whether it is running and answers, its address and its log."""
    rows, all_ready = [("part", "state", "pid", "address", "log")], True
    for part in _named(all_parts(settings), names):
        pid = part.process.pid()
        ready = pid is not None and part.ready()
        state = "running" if ready else "running, but does not answer" if pid else "not running"
        rows.append((part.name, state, str(pid or "-"), part.address, str(part.process.log)))
        all_ready = all_ready and ready
    for row in rows:
        widths = (max(len(other[i]) for other in rows) for i in range(len(row)))
        _tell("  ".join(map(str.ljust, row, widths)).rstrip())
    return 0 if all_ready else _NOT_RUNNING


def deploy(settings: Settings, names: Sequence[str]) -> int:
    """Register the work pool and the deployments of deployments/prefect.yaml with the server."""
    from deployments import checks, deploying

    server = _named(all_parts(settings), ["server"])[0]
    if server.process.pid():
        _wait_for(server)
    checks.api(settings)
    deploying.deploy(settings)
    return 0


def automations(settings: Settings, names: Sequence[str]) -> int:
    """Register the automations with the server, and store the webhook's address there."""
    from deployments import checks, messages

    checks.api(settings)
    messages.apply(settings, _tell)
    return 0


def foreground(settings: Settings, names: Sequence[str]) -> int:
    """Replace this process by one part, for a supervisor such as systemd."""
    from deployments import checks

    part = _only(_named(all_parts(settings), names))
    checks.state(settings.state)
    if part.process.pid():
        raise ConfigError(f"{part.name} is already running; make down stops it")
    _check_ports(settings, [part])
    if part.name == "server":
        checks.database(settings)
    elif part.name == "worker":
        checks.store(settings.store)
        checks.api(settings)
    part.process.become(part.command, ROOT, settings.for_part(part.name))
    return 1


COMMANDS: dict[str, Callable[[Settings, Sequence[str]], int]] = {
    "up": up,
    "down": down,
    "status": status,
    "deploy": deploy,
    "automations": automations,
    "foreground": foreground,
}


def main(words: Sequence[str]) -> int:
    """Run one command and return its exit code; errors print one line without a traceback."""
    try:
        if not words or words[0] not in COMMANDS:
            raise ConfigError(f"expected one of {', '.join(COMMANDS)}, then names of parts")
        settings = operator.read()
        os.environ.update(settings.for_part("worker"))  # before Prefect is imported and reads it
        return COMMANDS[words[0]](settings, words[1:])
    except FilterscopeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except ValidationError as error:  # Prefect reads its settings when it is imported
        for item in error.errors():
            name = ".".join(map(str, item["loc"]))
            print(f"error: Prefect's setting {name}: {item['msg']}", file=sys.stderr)
        return ConfigError.exit_code
    except KeyboardInterrupt:
        return 130


def _tell(line: str) -> None:
    print(line, flush=True)


def _named(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """Return the parts with these names; all parts if there are no names."""
    known = [part.name for part in parts]
    for name in names:
        if name not in known:
            raise ConfigError(f"{name}: no such part; the parts are {', '.join(known)}")
    return [part for part in parts if part.name in (names or known)]


def _only(parts: Sequence[Part]) -> Part:
    if len(parts) != 1:
        raise ConfigError("foreground: expected the name of one part: server, worker or pages")
    return parts[0]


def _check_ports(settings: Settings, parts: Sequence[Part]) -> None:
    """Raise ConfigError, before anything is started, if a part could not listen on its port."""
    from deployments import checks

    for part in parts:
        if part.port_setting and not part.process.pid():
            host = settings[part.port_setting.replace("PORT", "HOST")]
            checks.port(host, settings[part.port_setting], part.port_setting)


def _start_server(settings: Settings, part: Part) -> None:
    """Start the server, and register deployments and automations with it."""
    from deployments import checks

    if not part.process.pid():
        checks.database(settings)
    _start(settings, part)
    deploy(settings, ())
    automations(settings, ())


def _start(settings: Settings, part: Part) -> None:
    """Start a part unless it is running, and wait until it is ready."""
    if not part.process.pid():
        if part.process.tree():  # left over from a part that was killed
            part.process.end(_END_SECONDS)
        _tell(f"{part.name}: starting")
        part.process.start(part.command, ROOT, settings.for_part(part.name))
    _wait_for(part)


def _wait_for(part: Part) -> None:
    """Wait until a part is ready; raises ServerError if it ends or takes too long."""
    deadline = time.monotonic() + _START_SECONDS
    while not part.ready():
        if not part.process.pid():
            raise ServerError(f"{part.name} ended before it was ready; log:\n{_last_lines(part)}")
        if time.monotonic() > deadline:
            raise ServerError(
                f"{part.name} does not answer at {part.address} after {_START_SECONDS:.0f} s; "
                f"end of its log {part.process.log}:\n{_last_lines(part)}"
            )
        time.sleep(0.5)


def _last_lines(part: Part) -> str:
    path: Path = part.process.log
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-15:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
