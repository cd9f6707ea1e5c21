"""The systemd units and the operator's manual agree with the code."""

import re
from configparser import ConfigParser

import pytest

from deployments import automations, operate
from deployments.settings import FILE, ROOT

FOLDER = ROOT / "deployments" / "systemd"
PARTS = ("server", "worker", "pages")
MANUAL = (ROOT / "deployments" / "README.md").read_text()


@pytest.mark.parametrize("part", PARTS)
def test_a_unit_starts_its_part_with_the_settings_file(part: str) -> None:
    """Its commands exist, and they concern the part in its name."""
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    text = (FOLDER / f"filterscope-{part}.service").read_text()
    unit.read_string(text)
    service = unit["Service"]
    base = service["WorkingDirectory"]
    assert service["EnvironmentFile"] == f"-{base}/{FILE.relative_to(ROOT)}"
    commands = re.findall(r"^Exec\w+=(.*)$", text, re.MULTILINE)
    for command in commands:
        python, *words = command.split()
        assert python == f"{base}/.venv/bin/python"
        assert words[:2] == ["-m", "deployments.operate"]
        assert words[2] in operate.COMMANDS
        assert set(words[3:]) <= {part}
    assert service["ExecStart"].endswith(f"foreground {part}")


def test_the_manual_names_all_targets_for_operators() -> None:
    """Every `make x` in it is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", MANUAL, re.MULTILINE))
    assert {"up", "down", "status", "deploy", "automations"} <= named <= targets


def test_the_manual_has_the_hours_of_the_automations() -> None:
    """After these hours without a success a message is sent."""
    nightly, weekly = automations.HOURS["nightly-mnist"], automations.HOURS["weekly-best"]
    assert f"`nightly-*` for {nightly:g} hours" in MANUAL
    assert f"`weekly-best` for {weekly:g}" in MANUAL
