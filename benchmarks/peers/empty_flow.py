"""Prefect's own start: a flow of one task that does nothing, started as the command starts it."""

from flows import cli, prefect_settings  # noqa: F401  (a run imports the command)


def main() -> None:
    """Start Prefect's temporary server, as a run does, and do nothing in a task."""
    prefect_settings.apply()
    from prefect import flow, task

    @task
    def nothing() -> None:
        pass

    @flow
    def empty() -> None:
        nothing()

    empty()


if __name__ == "__main__":
    main()
