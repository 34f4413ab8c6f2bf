"""Clopper-Pearson intervals against published and closed-form values."""

from __future__ import annotations

import math

import pytest
from scipy.stats import beta, binomtest, multinomial

from doorward.core.stats import Paired, Rate


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


def test_a_paired_difference_covers_what_it_should() -> None:
    # every outcome of 40 images with known discordant shares: the interval holds the truth in about 95 %
    count, lost, gained = 40, 0.15, 0.05
    covered = 0.0
    for b in range(count + 1):
        for c in range(count + 1 - b):
            low, high = Paired(b, c, count).interval
            covered += (low <= lost - gained <= high) * multinomial.pmf(
                [b, c, count - b - c], count, [lost, gained, 1 - lost - gained]
            )
    assert 0.94 < covered < 0.98
    assert Paired(0, 0, 0).interval == (-1, 1)


def test_a_paired_difference_agrees_with_the_exact_test_of_mcnemar() -> None:
    for trials in (100, 1000):
        for lost in range(30):
            for gained in range(30):
                low, high = Paired(lost, gained, trials).interval
                assert (low, high) == pytest.approx(tuple(-v for v in reversed(Paired(gained, lost, trials).interval)))
                p_value = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
                assert (low > 0 or high < 0) or p_value > 0.03, "what is clear is told"
                assert not (low > 0 or high < 0) or p_value < 0.13, "what is chance is not"
