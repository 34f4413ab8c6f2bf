"""`Suspicion`: the same three things from every cleanser — a score and a flag per image, a table, warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from doorward.core.triggers import Trigger


@dataclass(frozen=True)
class Group:
    """One row of the table: a class, or a cluster within it, and why it was flagged or not.

    Args:
        label: the class.
        cluster: number of the cluster; 0 when the method looks at whole classes.
        size: images in it.
        statistic: the method's number for it.
        threshold: what the statistic was compared with; None when nothing was decided by it.
        flagged: images flagged in it.
    """

    label: int
    cluster: int
    size: int
    statistic: float
    threshold: float | None
    flagged: int

    def json(self) -> dict[str, object]:
        """As a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Suspicion:
    """What a cleanser says about a training set.

    Args:
        score: float32 ``[N]``, higher is more suspicious, comparable over the whole set.
        flag: bool ``[N]``.
        groups: the table.
        warnings: what the user must know before trusting this.
        tested: float64 ``[K]``, one number a class for the verdict, higher is more suspicious, on a scale on which
            classes without poison look normal; NaN for classes that were not inspected. None: no verdict rests on it.
        spread: of ``tested`` between classes without poison, at least; for numbers that most of them have alike.
        alone: float64 ``[K]``, chance that one class without poison shows as much, by what the method's authors saw of
            such classes; not corrected for the number of classes. Needs no other classes to compare with.
        triggers: by class, what the flagged images have in common, at the dose at which it works.
    """

    score: NDArray[np.float32]
    flag: NDArray[np.bool_]
    groups: tuple[Group, ...] = ()
    warnings: tuple[str, ...] = ()
    tested: NDArray[np.float64] | None = None
    spread: float = 0.0
    alone: NDArray[np.float64] | None = None
    triggers: Mapping[int, Trigger] = field(default_factory=dict)

    def class_scores(self, classes: int) -> list[float | None]:
        """The largest statistic of each class; None for a class without a row."""
        return [max((g.statistic for g in self.groups if g.label == k), default=None) for k in range(classes)]


def members_by_class(labels: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """(class, rows of its images) for every class that has images."""
    return [(int(k), np.flatnonzero(labels == k)) for k in np.unique(labels)]


def list_classes(labels: Sequence[int]) -> str:
    """Class numbers for a warning: at most eight of them."""
    shown = ", ".join(map(str, labels[:8]))
    return shown if len(labels) <= 8 else f"{shown} and {len(labels) - 8} more"
