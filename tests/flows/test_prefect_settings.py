"""The Prefect settings that a first run needs, and what happens where Prefect is out of reach."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("filterscope")
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


def _environment(home: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "FILTERSCOPE_STORE": str(home / "artifacts"),
        **more,
    }


def _settings(environment: dict[str, str]) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    settings: list[object] = json.loads(done.stdout)
    return settings


def test_the_defaults_reach_the_process_that_runs_the_flow(tmp_path: Path) -> None:
    """Time for the server to start, no telemetry, and the library's log in the UI."""
    assert _settings(_environment(tmp_path)) == [120, False, ["cnn"]]


def test_environment_and_profile_rule_over_the_defaults(tmp_path: Path) -> None:
    """A setting that a person made stays as it was made."""
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect/profiles.toml").write_text(
        'active = "mine"\n[profiles.mine]\nPREFECT_SERVER_ANALYTICS_ENABLED = "true"\n'
    )
    given = _environment(tmp_path, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="33")
    assert _settings(given) == [33, True, ["cnn"]]


@pytest.mark.parametrize("home_is_a_file", [False, True])
def test_a_prefect_out_of_reach_is_one_line(tmp_path: Path, home_is_a_file: bool) -> None:
    """An API that does not answer, or a server that cannot start, is named without traceback."""
    if home_is_a_file:
        (tmp_path / "prefect").touch()
        environment = _environment(tmp_path)
        wanted, code = f"error: Prefect's records could not be written to {tmp_path}/prefect", 2
    else:
        environment = _environment(tmp_path, PREFECT_API_URL="http://127.0.0.1:9/api")
        wanted, code = "error: Prefect's API cannot be reached: http://127.0.0.1:9/api", 1
    done = subprocess.run(
        [COMMAND, "run", "--data.source", "digits"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert wanted in done.stderr
    assert "Traceback (most recent call last)" not in done.stderr.split("error: ")[-1]
