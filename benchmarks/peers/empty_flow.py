"""Prefect's own start: a flow with one empty task, started the way the command starts a run."""

from flows import cli, prefect_settings  # noqa: F401  (a run imports the command)


def main() -> None:
    """Start Prefect's temporary server, as a run does, and run an empty task."""
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
