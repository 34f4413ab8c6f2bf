"""Whether a class still stands out: what a fresh inversion says of it, method by method."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.order_test import FEWEST_CLASSES
from doorward.core.triggers import Trigger
from doorward.inversion.invert import DEFAULT_METHODS, FEWEST_IMAGES, invert
from doorward.inversion.results import Inversion
from doorward.inversion.search.runner import Outcome

INVERSIONS = DEFAULT_METHODS


@dataclass(frozen=True, eq=False)
class Standing:
    """One class in the eyes of one inversion.

    Args:
        size: of its smallest trigger, in the method's unit; NaN where none was found.
        median, smallest: of the other classes' sizes.
        p_value: of the class by this method; None where the method allows no verdict.
        trigger: its best one; None where there is none that works.
    """

    method: str
    label: int
    size: float
    median: float
    smallest: float
    p_value: float | None
    trigger: Trigger | None

    def out(self, level: float) -> bool:
        """Whether the class stands out: by its p-value, or because no other class has a smaller trigger."""
        return (self.p_value is not None and self.p_value <= level) or self.size <= self.smallest

    def __str__(self) -> str:
        p = "no p" if self.p_value is None else f"p {self.p_value:.2g}"
        return f"{self.method} {self.size:.3g}, smallest other {self.smallest:.3g}, {p}"


def enough(classifier: Classifier, images: ImageSet) -> bool:
    """Whether there are classes and images for an inversion that can compare classes."""
    few = (len(classifier.classes) < FEWEST_CLASSES, len(images) < FEWEST_IMAGES)
    return not any(few) and len(np.unique(images.labels)) > 1


def look(classifier: Classifier, images: ImageSet, seed: int, settings: dict[str, dict[str, Any]]) -> Inversion:
    """Invert every class afresh."""
    return invert(classifier, images, INVERSIONS, settings=settings, seed=seed)


def standings(found: Inversion, label: int) -> Iterator[Standing]:
    """What every inversion says of a class."""
    for name, outcome in found.outcomes.items():
        yield _standing(name, outcome, label)


def _standing(name: str, outcome: Outcome, label: int) -> Standing:
    inverted, test = outcome.inverted, outcome.test
    sizes = np.full(len(inverted.statistic), np.nan) if inverted.size is None else inverted.size
    others = np.delete(sizes, label)
    others = others[np.isfinite(others)]
    median, smallest = (float(np.median(others)), float(others.min())) if len(others) else (math.nan, math.nan)
    triggers = inverted.triggers.get(label, ())
    return Standing(
        method=name,
        label=label,
        size=float(sizes[label]),
        median=median,
        smallest=smallest,
        p_value=None if test is None else float(test.classes[label]),
        trigger=triggers[0] if triggers and inverted.works[label] else None,
    )
