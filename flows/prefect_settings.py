"""The Prefect settings that a first run needs, where environment and profile are silent."""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

DEFAULTS = {
    # The temporary server needs more than its 20 s on a small or busy machine.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "cnn",
}


def apply() -> None:
    """Set the defaults in the environment, and have Prefect read its settings again.

    Looking at the profile already makes Prefect read them, so that the environment alone
    would reach the server but not this process.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.logging.configuration import setup_logging
    from prefect.settings import load_profiles

    active = load_profiles().active_profile
    profile = active.to_environment_variables() if active else {}
    for name, value in DEFAULTS.items():
        if name not in profile:
            os.environ.setdefault(name, value)
    refresh_global_settings_context()
    setup_logging()


def api_is_configured() -> bool:
    """Return whether runs are recorded at an API that environment, profile or a file name.

    Prefect is asked, which takes a second to import, only where something speaks of it.
    """
    named = ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")
    if not any(name.upper() in named for name in os.environ) and not any(_mentions()):
        return False
    from prefect.settings import get_current_settings

    return bool(get_current_settings().api.url)


def _mentions() -> Iterator[bool]:
    """Yield for each file that may hold Prefect's settings whether it speaks of them."""
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    yield "prefect_api_url" in _text(home / "profiles.toml")
    yield "prefect_" in _text(Path(".env"))
    yield Path("prefect.toml").exists()
    try:
        project = tomllib.loads(_text(Path("pyproject.toml")))
    except tomllib.TOMLDecodeError:
        yield True
    else:
        match project:
            case {"tool": {"prefect": _}}:
                yield True


def _text(path: Path) -> str:
    """Return a file's text in small letters, to Prefect all one; "" where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").lower()
    except OSError:
        return ""


def api_state() -> tuple[bool, str]:
    """Return whether Prefect's API can be reached, and what there is to know of it."""
    import httpx
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if not url:
        return True, "none configured; each run starts a temporary server"
    try:
        answer = httpx.get(f"{url}/health", timeout=5)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        return False, f"{url}: {str(error) or type(error).__name__}; is the server started?"
    return True, url
