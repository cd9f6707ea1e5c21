"""One thin Prefect task per step."""
