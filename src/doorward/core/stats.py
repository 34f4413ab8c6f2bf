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
