"""Vote counts: published values, exactness against brute force, coverage, speed."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import numpy as np
import pytest

from doorward.certification.smoothing.radius import Block, threshold
from doorward.certification.smoothing.votes import (
    ABSTAIN,
    radius_of_votes,
    trials_above,
    trials_needed,
    vote_table,
    votes_above,
    votes_needed,
)
from doorward.core.errors import DoorwardError


def tail(trials: int, p: Fraction, k: int) -> Fraction:
    return sum((math.comb(trials, i) * p**i * (1 - p) ** (trials - i) for i in range(k, trials + 1)), Fraction(0))


def test_votes_for_the_papers_setting() -> None:
    assert [votes_needed(10_000, r, 0.9) for r in (1, 2, 3)] == [9515, 9962, None]
    assert trials_needed(3, 0.9) == 10_069
    assert [votes_needed(10_000, r, 0.9, alpha=Fraction(1, 10**6)) for r in (1, 2)] == [9551, 9973]
    assert [votes_needed(10_000, r, 0.8) for r in (1, 2, 3, 4)] == [8852, 9741, 9949, 9953]
    assert votes_needed(10_069, 3, 0.9) == 10_069 and votes_needed(10_068, 3, 0.9) is None


def test_smallest_numbers_of_trials() -> None:
    assert [trials_needed(r, 0.9) for r in range(1, 6)] == [121, 1116, 10069, 90641, 815789]
    assert [trials_needed(r, 0.6) for r in range(1, 6)] == [18, 20, 24, 31, 32]


def test_against_brute_force_in_rationals() -> None:
    rng = np.random.default_rng(0)
    checked = 0
    for _ in range(150):
        trials, t = int(rng.integers(1, 61)), Fraction(int(rng.integers(50, 100)), 100)
        alpha = Fraction(1, int(rng.choice([3, 10, 100, 10**4, 7 * 10**9])))
        first = math.ceil((trials - 1) * t) + 1
        right = next(
            (k for k in range(first, trials + 1) if tail(trials, t, k) + tail(trials, 1 - t, k) <= alpha), None
        )
        assert votes_above(trials, t, alpha) == right, (trials, t, alpha)
        checked += right is not None
    assert checked > 50


def test_stirling_branch_against_scipy() -> None:
    from scipy.stats import binom

    for trials, t, alpha in ((10**6, 0.7, 1e-3), (10**7, 0.5625, 1e-6), (123_457, 0.875, 1e-2)):
        k = votes_above(trials, Fraction(t), Fraction(alpha))
        assert k is not None
        failure = binom.sf([k - 2, k - 1], trials, t) + binom.sf([k - 2, k - 1], trials, 1 - t)
        assert failure[1] <= alpha * (1 + 1e-6) and failure[0] > alpha * (1 - 1e-6)


def test_binomial_coefficients_are_enclosed_from_above() -> None:
    from doorward.certification.smoothing.votes import _binomial_up

    for n, k in ((8192, 4096), (20_000, 14_321), (10_000, 9_990), (50, 25)):
        mantissa, exponent = _binomial_up(n, k)
        excess = Fraction(mantissa) * Fraction(2) ** exponent / math.comb(n, k) - 1
        assert 0 <= excess < Fraction(1, 10**20)


@pytest.mark.parametrize(("trials", "t"), [(9, 0.5), (40, 0.5), (40, 0.6), (40, 0.875), (200, 0.6), (200, 0.9375)])
def test_no_class_probabilities_break_the_bound(trials: int, t: float) -> None:
    """The claim behind F(t) + F(1 - t): no point of the simplex has more false claims, with 2, 3 or 4 classes."""
    from scipy.stats import binom

    alpha = 0.05
    k = votes_above(trials, Fraction(t), Fraction(1, 20))
    assert k is not None
    rng = np.random.default_rng(1)
    points = [rng.dirichlet(np.full(c, a), 400) for c in (2, 3, 4) for a in (0.2, 1.0)]
    edges = [np.array([[t, 1 - t], [1 - t, t], [t - 1e-9, 1 - t + 1e-9]])]
    for p in points + edges:
        false = np.where(p <= t, binom.sf(k - 1, trials, p), 0).sum(axis=1)
        assert false.max() <= alpha * (1 + 1e-9)


def test_coverage_by_simulation() -> None:
    """At alpha .05, labels and radii claimed from one vote set are wrong in at most 5 % of the runs."""
    trials, alpha, runs = 300, Fraction(1, 20), 40_000
    rng = np.random.default_rng(2)
    thresholds = [float(threshold(r, 0.8)) for r in range(6)]
    table = vote_table(trials, [Block("cells", Fraction(4, 5))], alpha)
    worst = 0.0
    for top in (*thresholds[:4], 0.501, 0.93, 0.98):
        for rest in ([1 - top], [(1 - top) * 0.7, (1 - top) * 0.3]):
            p = np.array([top, *rest])
            votes = rng.multinomial(trials, p, size=runs)
            radii = np.searchsorted(table, votes.max(axis=1), side="right") - 1
            claimed = p[votes.argmax(axis=1)]
            false = (radii >= 0) & (claimed <= np.array(thresholds)[np.maximum(radii, 0)])
            worst = max(worst, float(false.mean()))
    assert worst <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / runs)
    assert worst > 0.03  # and not by being idle


@pytest.mark.parametrize(("trials", "keep"), [(20, "0.52"), (60, "0.51"), (60, "0.6"), (300, "0.55"), (2000, "0.52")])
def test_votes_that_choose_the_radius_too(trials: int, keep: str) -> None:
    """The exact probability of a false label or radius, with two labels, at every probability: 5 % at most.

    For the first two, counts that are right for radii chosen beforehand give more than 5 %.
    """
    from scipy.stats import binom

    alpha = Fraction(1, 20)
    thresholds = [threshold(r, keep) for r in range(12)]
    t = np.array([float(x) for x in thresholds])

    def worst(table: list[int]) -> float:
        rates = []
        for p in np.concatenate([np.linspace(0.5, 1, 400), t]):
            places = np.searchsorted(t, np.array([p, 1 - p]) - 1e-12)
            labels = zip(places, (p, 1 - p), strict=True)
            rates.append(sum(binom.sf(table[s] - 1, trials, q) for s, q in labels if s < len(table)))
        return float(max(rates))

    table = vote_table(trials, [Block("cells", Fraction(keep))], alpha, most=11)
    assert 0.03 < worst(table) <= 0.05
    assert table == sorted(table)
    beforehand = [k for x in thresholds if (k := votes_above(trials, x, alpha)) is not None]
    assert (worst(beforehand) > 0.05) == (keep in ("0.52", "0.51") and trials < 100)


def test_hundred_million_trials_in_well_under_a_second() -> None:
    for keep, radius in ((0.9, 0), (0.9, 2), (0.6, 5)):
        start = time.perf_counter()
        votes = votes_needed(10**8 - 3, radius, keep)
        assert time.perf_counter() - start < 0.5
        assert votes is not None
        # Chernoff: far from the mean by 3 to 5 standard deviations, no more.
        t = float(threshold(radius, keep))
        deviations = (votes - 10**8 * t) / math.sqrt(10**8 * t * (1 - t))
        assert 3 < deviations < 3.5


def test_radius_of_votes_and_abstention() -> None:
    radii = [radius_of_votes(v, 10_000, 0.9) for v in (5165, 5166, 9514, 9515, 9961, 9962, 10_000)]
    assert radii == [ABSTAIN, 0, 0, 1, 1, 2, 2]
    assert radius_of_votes(5, 5, 0.9) == ABSTAIN  # .5^5 + .5^5 > .001: five votes say nothing


def test_the_table_ends_where_all_cells_are_changed() -> None:
    assert len(vote_table(10**6, [Block("labels", Fraction(7, 10), cells=2)], Fraction(1, 100))) == 3


def test_bad_input() -> None:
    with pytest.raises(DoorwardError, match="trials"):
        votes_needed(0, 1, 0.9)
    with pytest.raises(DoorwardError, match="alpha"):
        votes_needed(100, 1, 0.9, alpha=0)
    with pytest.raises(DoorwardError, match="alpha"):
        trials_above(Fraction(3, 4), Fraction(1))
    with pytest.raises(DoorwardError, match="votes of 10"):
        radius_of_votes(11, 10, 0.9)
    with pytest.raises(DoorwardError, match="threshold"):
        votes_above(10, Fraction(1, 3), Fraction(1, 10))
