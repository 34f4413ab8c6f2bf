"""Intervals for rates: every rate that reaches a user carries one."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Rate:
    """``hits`` out of ``trials`` with a two-sided Clopper-Pearson interval at ``confidence``."""

    hits: int
    trials: int
    confidence: float = 0.95

    @property
    def value(self) -> float:
        """The rate itself; NaN when nothing was tried."""
        return self.hits / self.trials if self.trials else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson interval; (0, 1) when nothing was tried."""
        if not self.trials:
            return 0.0, 1.0
        from scipy.stats import binomtest

        found = binomtest(self.hits, self.trials).proportion_ci(self.confidence, method="exact")
        return float(found.low), float(found.high)

    def json(self) -> dict[str, object]:
        """Value, interval and counts, as a plain dictionary (NaN becomes None)."""
        low, high = self.interval
        value = self.value if self.trials else None
        return {"value": value, "low": low, "high": high, **asdict(self)}

    def __str__(self) -> str:
        if not self.trials:
            return "-"
        low, high = self.interval
        return f"{100 * self.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


@dataclass(frozen=True)
class Paired:
    """How far two classifiers differ in accuracy on the very same images, with an interval at ``confidence``.

    Images on which both are right, or both wrong, say nothing of the difference; what counts is on how many only one
    of them is right.

    Args:
        lost: images on which only the first is right.
        gained: images on which only the second is.
        trials: all images.
    """

    lost: int
    gained: int
    trials: int
    confidence: float = 0.95

    @property
    def value(self) -> float:
        """Accuracy of the first minus that of the second; NaN when nothing was tried."""
        return (self.lost - self.gained) / self.trials if self.trials else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The adjusted Wald interval for paired shares (Bonett and Price 2012); (-1, 1) without trials.

        One image is added to both kinds of discordant ones, which keeps the coverage where they are few.
        """
        if not self.trials:
            return -1.0, 1.0
        from scipy.stats import norm

        count = self.trials + 2
        first, second = (self.lost + 1) / count, (self.gained + 1) / count
        width = float(norm.ppf((1 + self.confidence) / 2)) * ((first + second - (first - second) ** 2) / count) ** 0.5
        return max(-1.0, first - second - width), min(1.0, first - second + width)

    def __str__(self) -> str:
        """In points of accuracy."""
        low, high = self.interval
        return f"{100 * self.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
