"""Keeps tracebacks of errors that a user can act on out of Prefect's log."""

import logging

from cnn.errors import FilterscopeError

_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


class _WithoutTraceback(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, FilterscopeError):
            record.exc_info = record.exc_text = None
            record.msg, record.args = f"{type(error).__name__}: {error}", ()
        return True


def hush() -> None:
    """Log a FilterscopeError as its message alone."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(item, _WithoutTraceback) for item in logger.filters):
            logger.addFilter(_WithoutTraceback())
