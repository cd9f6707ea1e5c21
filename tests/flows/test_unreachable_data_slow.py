"""The whole command refuses a data set that it can neither read nor fetch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnn.data import published
from cnn.errors import DataError
from tests import hosts

COMMAND = """
import sys
from cnn.data import published
from flows import cli
published.SETS["mnist"] = published.PublishedSet({addresses!r}, sha256={digests!r})
cli.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_the_command_refuses_a_damaged_file_that_no_host_replaces(tmp_path: Path) -> None:
    """One message, the exit code of bad data; no traceback, artifact, run folder or bad file."""
    store = tmp_path / "artifacts"
    bodies = hosts.written(store / "downloads" / "mnist", hosts.small_set())
    digests = hosts.digests(store / "downloads" / "mnist")
    path = store / "downloads" / "mnist" / published.FILE_NAMES["train-images"]
    path.write_bytes(hosts.PAGE)
    with hosts.serving(bodies) as server:
        addresses = tuple(server.at("dead", "gone"))
        script = COMMAND.format(digests=digests, addresses=addresses)
        done = subprocess.run(
            [sys.executable, "-c", script, "run", "--data.source", "mnist", "--store", store],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PREFECT_HOME": str(tmp_path / "prefect"), "NO_PROXY": "127.0.0.1"},
        )
    assert done.returncode == DataError.exit_code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert f"{addresses[0]}{path.name}: HTTP 403 Forbidden" in done.stderr
    assert f"{addresses[1]}{path.name}: HTTP 404 Not Found" in done.stderr
    assert f"{path}.bad: this is an HTML page, not an IDX file" in done.stderr
    assert hosts.PAGE.decode()[:80] in done.stderr
    assert not [found for found in store.glob("*/*") if found.parent.name != "downloads"]
    kept = {found.name for found in path.parent.iterdir()}
    assert kept == set(bodies) - {path.name} | {f"{path.name}.bad"}
