"""Rates with their intervals drawn in, for the tables of several sections."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from doorward.core.results import RateRecord
from doorward.core.text import percent
from doorward.reports import charts

FULL = (0.0, 1.0)


def accuracy_domain(rates: Iterable[RateRecord | None]) -> tuple[float, float]:
    """An axis for accuracies that are all high: from a round number below the lowest interval, at most 90 %, to 1."""
    lows = [rate.low for rate in rates if rate]
    return min(math.floor(10 * min(lows, default=0.0)) / 10, 0.9), 1.0


def drawn(rate: RateRecord | None, domain: tuple[float, float], css: str, words: str) -> dict[str, Any] | None:
    """A rate for the macro ``rate``: its numbers and its interval on an axis over ``domain``; None when unknown."""
    if rate is None or rate.value is None:
        return None
    label = f"{words}: {percent(rate.value)}, interval {percent(rate.low)} to {percent(rate.high)}"
    return {
        "value": rate.value,
        "low": rate.low,
        "high": rate.high,
        "hits": rate.hits,
        "trials": rate.trials,
        "chart": charts.interval(rate.value, rate.low, rate.high, domain, label, css),
    }
