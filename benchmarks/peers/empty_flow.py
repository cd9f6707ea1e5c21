"""Prefect's own start: a flow of one task that does nothing, with a temporary server."""

from prefect import flow, task

from flows import cli  # noqa: F401  (what a run imports before Prefect starts)


@task
def nothing() -> None:
    """Do nothing."""


@flow
def empty() -> None:
    """Do nothing in a task."""
    nothing()


if __name__ == "__main__":
    empty()
