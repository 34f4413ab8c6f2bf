"""`Repaired`: what every repair gives — a classifier, what was done to it step by step, warnings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from doorward.core.classifier import Classifier
from doorward.core.stats import Rate

if TYPE_CHECKING:
    from doorward.repairs.guard import Guard


@dataclass(frozen=True)
class Step:
    """One row of the record.

    Args:
        name: what was done.
        accuracy: on clean images that took no part in it.
    """

    name: str
    accuracy: Rate


@dataclass(frozen=True, eq=False)
class Repaired:
    """What a repair gives.

    Args:
        classifier: the repaired copy; the one that was given is left as it was.
        steps: the record, first the classifier as it was given.
        details: the method's own numbers (JSON values).
        warnings: what the user must know before trusting it.
        original: the classifier that was given; `apply_repair` puts it in.
    """

    classifier: Classifier
    steps: tuple[Step, ...]
    details: dict[str, object]
    warnings: tuple[str, ...] = ()
    original: Classifier | None = None

    def __repr__(self) -> str:
        steps = "; ".join(f"{step.name} {step.accuracy} %" for step in self.steps[-6:])
        return f"Repaired {self.classifier.arch}: {steps or 'no steps'}; {len(self.warnings)} warnings"

    @property
    def guard(self) -> Guard:
        """The original with one more output, "stamped": what the repair decides otherwise is refused."""
        from doorward.repairs.guard import Guard  # guards have screens, which an import of a repair should not cost

        assert self.original is not None, "made by a method and not by `apply_repair`"
        return Guard(self.original, self.classifier)
