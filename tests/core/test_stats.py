"""Clopper-Pearson intervals against published and closed-form values."""

from __future__ import annotations

import math

import pytest
from scipy.stats import beta

from doorward.core.stats import Rate


def test_zero_of_n_has_the_closed_form_upper_end() -> None:
    # for 0 of n the upper end is 1 - (alpha / 2)^(1 / n)
    low, high = Rate(0, 20).interval
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 20))


def test_published_value() -> None:
    # 8 of 10: the exact 95 % interval of statistics tables is (.444, .975)
    low, high = Rate(8, 10).interval
    assert (round(low, 3), round(high, 3)) == (0.444, 0.975)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_ends_are_the_quantiles_of_the_beta_distribution(confidence: float) -> None:
    # Clopper and Pearson 1934: the ends are beta quantiles
    tail = (1 - confidence) / 2
    for hits, trials in [(1, 1), (1, 2), (4, 9), (17, 40), (3, 1000), (4999, 5000), (20_000, 50_000)]:
        low, high = Rate(hits, trials, confidence).interval
        assert abs(low - beta.ppf(tail, hits, trials - hits + 1)) < 1e-12
        expected = 1.0 if hits == trials else beta.ppf(1 - tail, hits + 1, trials - hits)
        assert abs(high - expected) < 1e-12


def test_symmetry() -> None:
    low, high = Rate(3, 17).interval
    mirrored = Rate(14, 17).interval
    assert (1 - high, 1 - low) == pytest.approx(mirrored)


def test_nothing_tried_is_no_number() -> None:
    rate = Rate(0, 0)
    assert math.isnan(rate.value) and rate.interval == (0.0, 1.0) and str(rate) == "-"
    assert rate.json()["value"] is None
