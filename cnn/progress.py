"""How work reports its progress: through a callback that it is handed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How much of a piece of work is done, with the figures that go with it."""

    done: int
    total: int
    figures: Mapping[str, float] = field(default_factory=dict)


Report = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Do nothing: the callback of those who want no progress."""
