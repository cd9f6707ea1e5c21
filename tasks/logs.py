"""What of the library's log and of its errors appears in Prefect's log."""

import logging

from cnn.errors import FilterscopeError

_RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


class _WithoutTraceback(logging.Filter):
    """Shows an error that a user can act on as its message alone."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, FilterscopeError):
            record.exc_info = record.exc_text = None
            record.msg, record.args = str(error), ()
        return True


def prepare() -> None:
    """Let `cnn` log at INFO, and keep tracebacks of a FilterscopeError out of Prefect's log."""
    library = logging.getLogger("cnn")
    if library.level == logging.NOTSET:
        library.setLevel(logging.INFO)
    for name in _RUN_LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(item, _WithoutTraceback) for item in logger.filters):
            logger.addFilter(_WithoutTraceback())
