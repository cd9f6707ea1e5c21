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


def test_the_readme_lists_every_table_and_column() -> None:
    """Every table has a row, which names the columns of its schema."""
    from cnn.tables import schemas

    text = (ROOT / "README.md").read_text()
    for name, schema in schemas.SCHEMAS.items():
        assert f"`{name}`" in text or f"`{name}/index.parquet`" in text
        if name == "runs":
            continue
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        for column in schema.names:
            shown = column.removesuffix("_name")
            shared = {"schema_version", "split", "label_name", "prediction_name"}
            assert column in shared or column.startswith("clipped_") or f"`{shown}`" in row, column
