"""The status of a filter: the one rule that figures, tables and pages follow."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

# Two filters this similar do the work of one. On MNIST the most similar filters of a layer reach
# cosines of 0.4 and correlations of 0.6, with every recipe.
DUPLICATE = 0.95
# The mean response to one class is then three times the mean response to the others.
SPECIALIST = 0.5
# A filter that fires at a handful of positions seems to prefer the classes of those few images.
LEAST_ACTIVE = 0.001
StatusKind = Literal["dead", "duplicate", "specialist", ""]
KINDS: tuple[StatusKind, ...] = ("dead", "duplicate", "specialist", "")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class FilterStatus:
    """A filter's status; `other` is the twin of a duplicate, `label` the class of a specialist."""

    kind: StatusKind
    other: int | None = None
    label: int | None = None

    def words(self, class_names: Sequence[str]) -> str:
        """Return the status as text; "" where nothing stands out."""
        match self.kind:
            case "duplicate":
                return f"duplicate of {self.other}"
            case "specialist":
                return f"specialist for {class_names[self.label or 0]}"
            case _:
                return self.kind


def of(row: Row) -> FilterStatus:
    """Return the status of a row of the filters table, in which unknown values are null.

    The first that applies: dead; duplicate by its kernel, else by its activations; specialist.
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
    """Return the rows by status, dead filters first, those without a status last."""
    return sorted(rows, key=lambda row: (KINDS.index(of(row).kind), row["filter"]))


def counted(rows: Iterable[Row]) -> str:
    """Return the number of filters of each kind: "1 dead, 2 duplicates, 0 specialists"."""
    kinds = [of(row).kind for row in rows]
    n_dead, n_duplicates, n_specialists = (kinds.count(kind) for kind in KINDS[:-1])
    return (
        f"{n_dead} dead, {n_duplicates} {'duplicate' if n_duplicates == 1 else 'duplicates'}, "
        f"{n_specialists} {'specialist' if n_specialists == 1 else 'specialists'}"
    )


def rule() -> str:
    """Return the rule as text, in two lines."""
    return (
        "dead: never fires; duplicate: kernel cosine or activation correlation with another "
        f"filter of at least {DUPLICATE:g};\nspecialist: selectivity of at least {SPECIALIST:g} "
        "(responds to one class three times as strongly as to the others) and "
        f"{100 * LEAST_ACTIVE:g} % of positions active"
    )


def _reaches(value: float | None, least: float) -> bool:
    return value is not None and value >= least
