"""Prefect's own start: a flow of one task that does nothing, started as the command starts it."""

from flows import cli, prefect_settings


def main() -> None:
    """Start Prefect's temporary server, as a run does, and do nothing in a task."""
    prefect_settings.apply()
    from prefect import flow, task

    nothing = task(lambda: None, name="nothing")
    flow(lambda: nothing(), name=cli.app.name[0])()


if __name__ == "__main__":
    main()
