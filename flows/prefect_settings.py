"""Defaults for Prefect's settings, for what neither environment nor profile sets."""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

DEFAULTS = {
    # Prefect's default of 20 s is too short for the temporary server on a small or busy machine.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "cnn",
}


def apply() -> None:
    """Set the defaults in the environment, and make Prefect read its settings again.

    Reading the profile already loads Prefect's settings, so without the second reading the
    defaults would reach the server but not this process.
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
    """Return whether environment, profile or a settings file configures an API.

    Prefect takes a second to import, so it is asked only if one of these mentions it.
    """
    variables = ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")
    if not any(name.upper() in variables for name in os.environ) and not any(_mentions()):
        return False
    from prefect.settings import get_current_settings

    return bool(get_current_settings().api.url)


def _mentions() -> Iterator[bool]:
    """Yield for each file that may hold Prefect's settings whether it mentions them."""
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
    """Return a file's text in lower case, as Prefect ignores case; "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").lower()
    except OSError:
        return ""


def api_state() -> tuple[bool, str]:
    """Return whether Prefect's API can be reached, and its address or what is wrong."""
    import httpx
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if not url:
        return True, "none configured; each run starts a temporary server"
    try:
        httpx.get(f"{url}/health", timeout=5).raise_for_status()
    except httpx.HTTPError as error:
        return False, f"{url}: {str(error) or type(error).__name__}; is the server running?"
    return True, url
