"""The record of a run without anything unusual."""

from datetime import UTC, datetime

from cnn.runs.records import RunRecord

PLAIN = RunRecord(
    run="now",
    created=datetime(2026, 11, 1, tzinfo=UTC),
    status="completed",
    data="digits",
    recipe="fast",
    seed=0,
    config={},
    training={},
    steps=(),
    seconds=1,
)
