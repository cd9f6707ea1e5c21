"""Sets how log messages and errors of the library appear in Prefect's log."""

import logging
from collections.abc import Iterator
from functools import partial

from prefect.logging.handlers import PrefectConsoleHandler

from cnn.errors import FilterscopeError

_RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


class _WithoutTraceback(logging.Filter):
    """Logs a FilterscopeError, which a user can act on, as its message alone."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, FilterscopeError):
            record.exc_info = record.exc_text = None
            record.msg, record.args = str(error), ()
        return True


def prepare() -> None:
    """Let `cnn` log at INFO, and keep tracebacks of FilterscopeErrors out of Prefect's log."""
    library = logging.getLogger("cnn")
    if library.level == logging.NOTSET:
        library.setLevel(logging.INFO)
    for name in _RUN_LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(item, _WithoutTraceback) for item in logger.filters):
            logger.addFilter(_WithoutTraceback())


def console_handlers() -> Iterator[PrefectConsoleHandler]:
    """Yield every handler through which Prefect writes to the terminal."""
    names = list(logging.root.manager.loggerDict)
    for logger in (logging.root, *(logging.getLogger(name) for name in names)):
        yield from (h for h in logger.handlers if isinstance(h, PrefectConsoleHandler))


def outlive_the_console() -> None:
    """Let a run continue without output when its console is closed.

    rich would raise SystemExit in the next thread that logs, even in one that reports the run's
    final state.
    """
    for handler in console_handlers():
        handler.console.on_broken_pipe = partial(setattr, handler.console, "quiet", True)  # type: ignore[method-assign]
