"""Shows the progress of a step: a bar on a terminal, a progress artifact in the Prefect UI."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cnn import formatting, progress
from tasks.runtime import logs

log = logging.getLogger(__name__)

ARTIFACT_SECONDS = 2.0


class Bars:
    """A progress bar for each running step, on a terminal only."""

    def __init__(self) -> None:
        """Prepare the bars; nothing is shown yet."""
        self._console = Console(stderr=True)
        self._lines = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._lock = threading.Lock()
        self._n_lines = 0
        self._consoles: list[tuple[PrefectConsoleHandler, Any]] = []

    @contextmanager
    def line(self, name: str) -> Iterator[progress.Report]:
        """Yield a callback that shows one step's progress while the block runs."""
        with self._lock:
            self._n_lines += 1
            if self._n_lines == 1:
                self._start()
            task = self._lines.add_task(name, total=None, figures="")
        try:
            yield lambda now: self._update(task, now)
        finally:
            with self._lock:
                self._n_lines -= 1
                self._lines.update(task, visible=False)
                if self._n_lines == 0:
                    self._stop()

    def _update(self, task: TaskID, now: progress.Progress) -> None:
        self._lines.update(task, completed=now.done, total=now.total, figures=describe(now))

    def _start(self) -> None:
        """Show the bars, and let Prefect's log lines appear above them."""
        if self._console.is_terminal:
            self._consoles = [(handler, handler.console) for handler in logs.console_handlers()]
            for handler, _ in self._consoles:
                handler.console = self._console
        self._lines.start()

    def _stop(self) -> None:
        self._lines.stop()
        for handler, console in self._consoles:
            handler.console = console


class Artifact:
    """A progress artifact, created by the first report and updated at most every two seconds."""

    def __init__(self, name: str) -> None:
        """Prepare the artifact of a step; nothing is sent yet."""
        self._name = name
        self._id: UUID | None = None
        self._shown_at = 0.0
        self._first: tuple[float, int] | None = None
        self._broken = False

    def report(self, now: progress.Progress) -> None:
        """Send the progress and the time left, if an update is due."""
        at, last = time.monotonic(), now.done >= now.total
        self._first = self._first or (at, now.done)
        if last or at - self._shown_at >= ARTIFACT_SECONDS:
            self._shown_at = at
            parts = filter(None, [describe(now), self._left(at, now)])
            self.send(100 * now.done / max(now.total, 1), ", ".join(parts))

    def _left(self, at: float, now: progress.Progress) -> str:
        """Return the time left at the pace since the first report; "" if it is not known yet."""
        started, first = self._first or (at, now.done)
        if not first < now.done < now.total:
            return ""
        left = (at - started) * (now.total - now.done) / (now.done - first)
        return f"{formatting.seconds(left)} left"

    def send(self, percent: float, description: str) -> None:
        """Send percentage and description; if the server fails, warn once and send no more."""
        if self._broken:
            return
        try:
            if self._id is None:
                key = f"{self._name.replace('_', '-')}-progress"
                created = create_progress_artifact(percent, key=key, description=description)
                self._id = created if isinstance(created, UUID) else None
            else:
                update_progress_artifact(self._id, percent, description)
        except Exception as error:
            self._broken = True
            log.warning("progress of %s cannot be shown in Prefect: %s", self._name, error)


@contextmanager
def reported(name: str, bars: Bars) -> Iterator[progress.Report]:
    """Yield the callback that shows a step's progress on the terminal and in the UI."""
    artifact = Artifact(name)
    with bars.line(name) as on_screen:

        def report(now: progress.Progress) -> None:
            on_screen(now)
            artifact.report(now)

        yield report


def describe(now: progress.Progress) -> str:
    """Return the figures of a progress report as text: accuracy, images per second."""
    formats = {"accuracy": "accuracy {:.2%}", "images_per_second": "{:,.0f} images/s"}
    return ", ".join(formats[name].format(value) for name, value in now.figures.items())
