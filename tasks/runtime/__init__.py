"""Prefect's plumbing: how a step becomes a task, what the tasks of a run share."""
