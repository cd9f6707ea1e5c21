"""Errors in Prefect's log."""

import logging
import sys

import pytest

from cnn.errors import DataError
from tasks.runtime import logs


@pytest.mark.parametrize(
    ("error", "message", "has_traceback"),
    [
        (DataError("file x: is empty"), "file x: is empty", False),
        (ZeroDivisionError("ours"), "failed: ZeroDivisionError('ours')", True),
    ],
)
def test_only_a_filterscope_error_is_logged_without_a_traceback(
    error: Exception, message: str, has_traceback: bool
) -> None:
    """Any other error is a bug of ours, and is logged in full."""
    logs.prepare()
    logger = logging.getLogger("prefect.task_runs")
    try:
        raise error
    except Exception:
        record = logger.makeRecord(
            logger.name, logging.ERROR, __file__, 1, "failed: %r", (error,), sys.exc_info()
        )
    assert logger.filter(record)
    assert (record.getMessage(), record.exc_info is not None) == (message, has_traceback)


def test_preparing_twice_adds_one_filter() -> None:
    """Filters do not accumulate when one process runs many flows."""
    logs.prepare()
    before = len(logging.getLogger("prefect.task_runs").filters)
    logs.prepare()
    assert len(logging.getLogger("prefect.task_runs").filters) == before
