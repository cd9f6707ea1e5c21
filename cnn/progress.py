"""The progress of a piece of work, and the callback that reports it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How much of a piece of work is done, with current figures such as the loss."""

    done: int
    total: int
    figures: Mapping[str, float] = field(default_factory=dict)


Report = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Do nothing: the callback for callers that need no progress."""
