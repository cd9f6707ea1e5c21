"""What stands out about a filter: the one rule that figure, table and pages follow."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

# Two filters that are so alike do the work of one. On MNIST the most alike of a layer have
# cosines up to 0.4 and correlations up to 0.6, whatever the recipe.
DUPLICATE = 0.95
# The filter's mean response to one class is then three times its mean response to the others.
SPECIALIST = 0.5
# One that fires at a handful of positions prefers the class of whatever image they are in.
LEAST_ACTIVE = 0.001
StatusKind = Literal["dead", "duplicate", "specialist", ""]
KINDS: tuple[StatusKind, ...] = ("dead", "duplicate", "specialist", "")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class FilterStatus:
    """What a filter is called; of a duplicate the other one, of a specialist its class."""

    kind: StatusKind
    other: int | None = None
    label: int | None = None

    def words(self, class_names: Sequence[str]) -> str:
        """Return the verdict as it is written; "" where nothing stands out."""
        match self.kind:
            case "duplicate":
                return f"duplicate of {self.other}"
            case "specialist":
                return f"specialist for {class_names[self.label or 0]}"
            case _:
                return self.kind


def of(row: Row) -> FilterStatus:
    """Return the verdict on a row of the filters table, null where a figure is not known.

    The first that holds: dead; duplicate, by its kernel, else by its activations; specialist.
    """
    if row["dead"]:
        return FilterStatus("dead")
    if _reaches(row["nearest_cosine"], DUPLICATE):
        return FilterStatus("duplicate", other=int(row["nearest_filter"]))
    if _reaches(row["correlation"], DUPLICATE):
        return FilterStatus("duplicate", other=int(row["correlated_filter"]))
    if row["fraction_active"] >= LEAST_ACTIVE and _reaches(row["selectivity"], SPECIALIST):
        return FilterStatus("specialist", label=int(row["preferred_label"]))
    return FilterStatus("")


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Return the rows by verdict, the dead first, those without one last."""
    return sorted(rows, key=lambda row: (KINDS.index(of(row).kind), row["filter"]))


def counted(rows: Iterable[Row]) -> str:
    """Return in words how many there are of each kind."""
    kinds = [of(row).kind for row in rows]
    n_dead, n_duplicates, n_specialists = (kinds.count(kind) for kind in KINDS[:-1])
    return (
        f"{n_dead} dead, {n_duplicates} {'duplicate' if n_duplicates == 1 else 'duplicates'}, "
        f"{n_specialists} {'specialist' if n_specialists == 1 else 'specialists'}"
    )


def rule() -> str:
    """Return the rule in words."""
    return (
        "dead: never fires; duplicate: cosine of kernels or correlation of activations with "
        f"another filter at least {DUPLICATE:g};\nspecialist: selectivity at least "
        f"{SPECIALIST:g} (fires for one class three times as strongly as for the others), "
        f"{100 * LEAST_ACTIVE:g} % of positions active"
    )


def _reaches(value: float | None, least: float) -> bool:
    return value is not None and value >= least
