"""The Prefect settings that a first run needs, where environment and profile are silent."""

import os

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
