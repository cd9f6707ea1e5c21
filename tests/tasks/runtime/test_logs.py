"""What reaches Prefect's log."""

import logging
import sys

from cnn.errors import DataError
from tasks.runtime import logs


def _filtered(error: Exception) -> logging.LogRecord:
    """The record that Prefect makes of an error, as the log's handlers get it."""
    logs.prepare()
    logger = logging.getLogger("prefect.task_runs")
    try:
        raise error
    except Exception:
        record = logger.makeRecord(
            logger.name, logging.ERROR, __file__, 1, "failed: %r", (error,), sys.exc_info()
        )
    assert logger.filter(record)
    return record


def test_an_error_to_act_on_is_logged_without_a_traceback() -> None:
    """Only its message is shown."""
    record = _filtered(DataError("file x: is empty"))
    assert record.getMessage() == "file x: is empty"
    assert record.exc_info is None


def test_any_other_error_keeps_its_traceback() -> None:
    """A fault of ours is logged whole."""
    record = _filtered(ZeroDivisionError("ours"))
    assert record.getMessage() == "failed: ZeroDivisionError('ours')"
    assert record.exc_info is not None


def test_preparing_twice_adds_one_filter() -> None:
    """Many runs in one process do not pile filters up."""
    logs.prepare()
    before = len(logging.getLogger("prefect.task_runs").filters)
    logs.prepare()
    assert len(logging.getLogger("prefect.task_runs").filters) == before
