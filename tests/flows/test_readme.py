"""The README's commands and code blocks, run as they are."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

BLOCKS = re.findall(r"```(\w*)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
SHELL = [body for kind, body in BLOCKS if kind == "sh"]
PYTHON = [body for kind, body in BLOCKS if kind == "python"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_and_block_of_the_readme_works(tmp_path: Path) -> None:
    """`make run` and all shell blocks succeed in one folder; then the Python blocks run."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FILTERSCOPE_STORE": str(tmp_path / "artifacts"),
        "PREFECT_HOME": str(tmp_path / "prefect"),
    }
    assert len(SHELL) >= 2
    assert len(PYTHON) >= 2
    subprocess.run(["make", "run"], cwd=ROOT, env=environment, check=True)
    for block in SHELL:
        subprocess.run(["sh", "-euc", block], cwd=tmp_path, env=environment, check=True)
    script = "\n".join(PYTHON)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert re.search(r"^0\.\d+$", done.stdout, re.MULTILINE)
    assert "label_name" in done.stdout
