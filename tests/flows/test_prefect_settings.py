"""Defaults for Prefect's settings, and errors if Prefect cannot be reached."""

import json
import subprocess
from pathlib import Path

import pytest

from tests import commands

SCRIPT = """
import json
from flows import prefect_settings
prefect_settings.apply()
from prefect.settings import get_current_settings
now = get_current_settings()
print(json.dumps([
    now.server.ephemeral.startup_timeout_seconds,
    now.server.analytics_enabled,
    list(now.logging.extra_loggers or []),
]))
"""


def _settings(home: Path, **more: str) -> object:
    environment = commands.environment(home, **more)
    return json.loads(commands.run_python(SCRIPT, environment=environment).stdout)


def test_the_defaults_reach_the_process_that_runs_the_flow(tmp_path: Path) -> None:
    """Time for the server to start, no telemetry, and the library's log in the UI."""
    assert _settings(tmp_path) == [120, False, ["cnn"]]


def test_environment_and_profile_override_the_defaults(tmp_path: Path) -> None:
    """Settings that a person made are kept."""
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect/profiles.toml").write_text(
        'active = "mine"\n[profiles.mine]\nPREFECT_SERVER_ANALYTICS_ENABLED = "true"\n'
    )
    given = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "33"}
    assert _settings(tmp_path, **given) == [33, True, ["cnn"]]


@pytest.mark.parametrize("home_is_a_file", [False, True])
def test_an_unreachable_prefect_is_one_line(tmp_path: Path, home_is_a_file: bool) -> None:
    """An API that does not answer, or a server that cannot start, gives no traceback."""
    environment = commands.environment(tmp_path)
    if home_is_a_file:
        (tmp_path / "prefect").touch()
        message, code = f"error: Prefect's records could not be written to {tmp_path}/prefect", 2
    else:
        environment["PREFECT_API_URL"] = "http://127.0.0.1:9/api"
        message, code = "error: Prefect's API cannot be reached: http://127.0.0.1:9/api", 1
    done = subprocess.run(
        [commands.COMMAND, "run", "--data.source", "digits"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback (most recent call last)" not in done.stderr.split("error: ")[-1]
