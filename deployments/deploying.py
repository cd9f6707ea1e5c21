"""Registers the work pool and the deployments of prefect.yaml with the server."""

import subprocess
import sys
from pathlib import Path

import httpx

from cnn.errors import ServerError
from deployments.api import ask
from deployments.settings import POOL, ROOT, Settings

FILE = "deployments/prefect.yaml"


def deploy(settings: Settings) -> None:
    """Create the work pool if it is missing, and update all deployments."""
    _create_pool(settings)
    prefect = str(Path(sys.executable).with_name("prefect"))
    words = (prefect, "--no-prompt", "deploy", "--all", "--prefect-file", FILE)
    done = subprocess.run(
        words,
        cwd=ROOT,
        env=settings.for_part("worker"),
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0 or "Skipping" in done.stdout:
        raise ServerError(f"prefect deploy failed:\n{done.stdout}")


def _create_pool(settings: Settings) -> None:
    """Create the process work pool; an existing one is left as the operator configured it."""
    pool = {"name": POOL, "type": "process", "base_job_template": _job_template()}
    answer = ask(settings, "POST", "/work_pools/", pool)
    if not answer.is_success and answer.status_code != httpx.codes.CONFLICT:
        raise ServerError(
            f"work pool {POOL} could not be created: {answer.status_code} {answer.text[:500]}"
        )


def _job_template() -> dict[str, object]:
    from prefect.workers.process import ProcessWorker

    return dict(ProcessWorker.get_default_base_job_template())
