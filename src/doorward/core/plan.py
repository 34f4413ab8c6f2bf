"""What a command would do and how long that takes, told before it does it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.text import duration


@dataclass(frozen=True)
class Plan:
    """A plan in words.

    Args:
        lines: what would be read and run.
        seconds: about how long it takes on this machine; None where a part was not measured.
        at_most: what is measured may end earlier.
    """

    lines: tuple[str, ...]
    seconds: float | None
    at_most: bool = False

    @property
    def told(self) -> tuple[str, ...]:
        """The lines, the last one how long it takes."""
        if self.seconds is None:
            return (*self.lines, "how long it takes was not measured")
        limit = " at most" if self.at_most else ""
        return (*self.lines, f"{duration(self.seconds)}{limit} on this machine, measured on a part of it")


def about(classifier: Classifier, images: ImageSet | None) -> tuple[str, ...]:
    """Images and model, in words."""
    return (repr(classifier),) if images is None else (repr(images), repr(classifier))


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def at_pace(work: Callable[[int], object], few: int, more: int, all_of_it: int) -> float:
    """Seconds for ``all_of_it`` steps, from the seconds that ``few`` and ``more`` of them take."""
    first, second = timed(lambda: work(few)), timed(lambda: work(more))
    return first + max(second - first, 0.0) / (more - few) * max(all_of_it - few, 0)
