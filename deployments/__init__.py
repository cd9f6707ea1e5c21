"""Running filterscope unattended: Prefect's server, a worker, schedules, messages."""
