"""Runs filterscope unattended, with a Prefect server, a worker, schedules and messages."""
