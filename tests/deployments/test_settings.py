"""The operator's settings: file, environment, defaults, and refused values."""

from pathlib import Path

import pytest

from cnn.errors import ConfigError
from deployments import settings
from deployments.settings import ROOT

HERE = Path("filterscope.env")


def test_a_file_may_have_comments_blank_lines_and_quotes() -> None:
    """It has the format of systemd's EnvironmentFile."""
    text = "# a comment\n\n; another\nA=1\n  B = x\nC=\"a b\"\nD='#no comment'\nE=a=b#c\nF=\n"
    with pytest.raises(ConfigError, match=r"filterscope\.env, line 5: expected KEY=VALUE"):
        settings.parse(text, HERE)
    values = settings.parse(text.replace("  B = x", "  B=x "), HERE)
    assert values == {"A": "1", "B": "x", "C": "a b", "D": "#no comment", "E": "a=b#c", "F": ""}


def test_an_open_quote_is_refused_without_its_value() -> None:
    """The message has file, line and setting; the value may be a secret."""
    with pytest.raises(ConfigError, match=r"line 1: SECRET has an unclosed quote") as refused:
        settings.parse("SECRET='geheim\n", HERE)
    assert "geheim" not in str(refused.value)


def test_the_environment_overrides_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that is set and not empty wins; the file overrides defaults."""
    path = tmp_path / "settings"
    path.write_text("PREFECT_SERVER_API_PORT=5000\nFILTERSCOPE_PAGES_PORT=5001\n")
    monkeypatch.setenv("FILTERSCOPE_SETTINGS", str(path))
    monkeypatch.setenv("FILTERSCOPE_PAGES_PORT", "5002")
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", "")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    found = settings.read()
    assert found.api == "http://127.0.0.1:5000/api"
    assert found["PREFECT_SERVER_UI_API_URL"] == "http://127.0.0.1:5000/api"
    assert found["FILTERSCOPE_PAGES_URL"] == "http://127.0.0.1:5002"


def test_a_missing_settings_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing starts with other settings than those in the named file."""
    monkeypatch.setenv("FILTERSCOPE_SETTINGS", "/nowhere")
    with pytest.raises(ConfigError, match="FILTERSCOPE_SETTINGS: there is no file /nowhere"):
        settings.read()


def test_by_default_nothing_listens_beyond_this_machine() -> None:
    """Prefect's server and the report server are bound to 127.0.0.1; telemetry is off."""
    found = settings.complete({})
    assert found["PREFECT_SERVER_API_HOST"] == found["FILTERSCOPE_PAGES_HOST"] == "127.0.0.1"
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert found["DO_NOT_TRACK"] == "1"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_server_that_listens_everywhere_is_reached_locally(host: str) -> None:
    """The parts on this machine need an address to which they can connect."""
    assert settings.address(host, "4200") in ("http://127.0.0.1:4200", "http://[::1]:4200")


def test_a_relative_store_is_taken_from_the_checkout() -> None:
    """The current folder of a command or a worker does not matter."""
    assert settings.complete({"FILTERSCOPE_STORE": "kept"}).store == ROOT / "kept"
    assert settings.complete({}).store == ROOT / "artifacts"
    assert settings.complete({"FILTERSCOPE_STORE": "/srv/kept"}).store == Path("/srv/kept")


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "80.5"])
def test_an_invalid_port_is_refused(port: str) -> None:
    """The message names the setting and the range."""
    with pytest.raises(ConfigError, match=r"PAGES_PORT: .* expected a port, 1 to 65535"):
        settings.complete({"FILTERSCOPE_PAGES_PORT": port})


@pytest.mark.parametrize("password", ["admin", ":x", "admin:", "admin:pässword", "a:b\n"])
def test_a_password_that_the_server_could_not_compare_is_refused(password: str) -> None:
    """It is not shown."""
    with pytest.raises(ConfigError, match="expected user:password in printable ASCII") as refused:
        settings.complete({"PREFECT_SERVER_API_AUTH_STRING": password})
    assert "ssword" not in str(refused.value).replace("user:password", "")


def test_no_part_gets_secrets_that_it_does_not_need() -> None:
    """A worker, and with it every run, knows neither webhook nor database."""
    secrets = {
        "FILTERSCOPE_WEBHOOK_URL": "https://chat.example/geheim",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://u:geheim@db/prefect",
    }
    found = settings.complete({**secrets, "PREFECT_SERVER_API_AUTH_STRING": "admin:secret"})
    for part in ("worker", "pages"):
        assert not any("geheim" in value for value in found.for_part(part).values())
    assert found.for_part("worker")["PREFECT_API_AUTH_STRING"] == "admin:secret"
    assert "FILTERSCOPE_WEBHOOK_URL" not in found.for_part("server")


def test_the_example_file_shows_the_defaults() -> None:
    """Removing the # from a line with a default changes nothing."""
    path = ROOT / "deployments" / "filterscope.env.example"
    lines = [line[1:] for line in path.read_text().splitlines() if line.startswith("#")]
    assigned = [line for line in lines if "=" in line and line[0].isupper()]
    shown = settings.parse("\n".join(line for line in assigned if " " not in line), path)
    found = settings.complete({})
    for name in ("PREFECT_SERVER_API_HOST", "PREFECT_SERVER_API_PORT", "FILTERSCOPE_PAGES_URL"):
        assert shown[name] == found[name]
    assert shown["PREFECT_SERVER_UI_API_URL"] == found["PREFECT_SERVER_UI_API_URL"]
    assert ROOT / shown["FILTERSCOPE_STORE"] == found.store
