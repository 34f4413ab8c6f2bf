"""Thresholds: published values, exactness, monotonicity, splits over blocks, the region."""

from __future__ import annotations

import time
from fractions import Fraction
from itertools import product

import pytest

from doorward.certification.smoothing.radius import (
    Block,
    certified_region,
    is_certified,
    joint_threshold,
    maximal_splits,
    split_threshold,
    splits,
    threshold,
    worst_case,
)
from doorward.core.errors import DoorwardError

# Lee et al. 2019, the thresholds that their code ships for MNIST (alpha .8, d 2) and ImageNet (alpha .2, d 256).
BINARY = ["0.875", "0.96875", "0.9921875", "0.99275", "0.9969875", "0.999006875", "0.99970371875"]
BYTES = [0.696862745098039, 0.853735332564398, 0.978988296688302, 0.994936458814856]


def test_published_thresholds() -> None:
    assert [threshold(r, "0.8") for r in range(1, 8)] == [Fraction(t) for t in BINARY]
    assert [float(threshold(r, 0.2, 256)) for r in range(1, 5)] == pytest.approx(BYTES, abs=1e-15)
    assert float(threshold(3, 0.9)) == pytest.approx(0.99931413, abs=5e-9)


def test_one_cell_by_hand() -> None:
    # One binary cell: P = (9/10, 1/10), Q = (1/10, 9/10); half of Q: all of the first region, 4/9 of the second.
    assert threshold(1, Fraction(9, 10)) == Fraction(9, 10) + Fraction(4, 10) / 9 == Fraction(17, 18)
    assert threshold(0, 0.9) == Fraction(1, 2)


def test_thirty_thresholds_for_bytes_in_half_a_second() -> None:
    start = time.perf_counter()
    thresholds = [threshold(r, Fraction(199, 1000), 256) for r in range(1, 31)]
    assert time.perf_counter() - start < 0.5
    assert thresholds == sorted(thresholds) and len(set(thresholds)) == 30


@pytest.mark.parametrize("keep", [Fraction(51, 100), Fraction(7, 10), Fraction(99, 100)])
@pytest.mark.parametrize("domain", [2, 3, 10])
def test_thresholds_rise_with_the_radius(keep: Fraction, domain: int) -> None:
    thresholds = [threshold(r, keep, domain) for r in range(12)]
    assert thresholds == sorted(thresholds)
    assert all(Fraction(1, 2) <= t < 1 for t in thresholds)


def test_worst_case_at_the_threshold_is_a_tie() -> None:
    for radius, keep, domain in product(range(5), (Fraction(4, 5), Fraction(2, 5)), (3, 7)):
        assert worst_case(threshold(radius, keep, domain), radius, keep, domain) == Fraction(1, 2)


def test_multi_class_form() -> None:
    keep = Fraction(4, 5)
    for radius in (1, 2, 3):
        edge = threshold(radius, keep)
        just = Fraction(1, 10**9)
        assert is_certified(edge + just, 1 - edge - just, radius, keep)
        assert not is_certified(edge, 1 - edge, radius, keep)
    # A runner-up far below 1 - low is certified where the two-class form is not.
    assert threshold(1, keep) > Fraction(7, 10)
    assert is_certified(Fraction(7, 10), Fraction(4, 100), 1, keep)  # .7 / 4 against .04 * 4
    assert not is_certified(Fraction(7, 10), Fraction(5, 100), 1, keep)


def test_blocks_of_equal_noise_are_one_block() -> None:
    blocks = [Block("a", Fraction(9, 10)), Block("b", Fraction(9, 10)), Block("c", Fraction(9, 10))]
    assert joint_threshold(4, blocks) == threshold(4, 0.9)
    assert split_threshold((1, 2, 1), blocks) == threshold(4, 0.9)
    assert certified_region(Fraction(995, 1000), blocks) == tuple(s for s in product(range(3), repeat=3) if sum(s) == 2)


def test_worst_split_of_unequal_blocks() -> None:
    blocks = [Block("pixels", Fraction(8, 10)), Block("labels", Fraction(6, 10), 3), Block("test", Fraction(9, 10))]
    each = {s: split_threshold(s, blocks) for s in product(range(4), repeat=3) if sum(s) == 3}
    assert joint_threshold(3, blocks) == max(each.values()) == each[0, 0, 3]
    assert each[3, 0, 0] == threshold(3, 0.8) and each[0, 3, 0] == threshold(3, 0.6, 3)


def test_blocks_limit_the_attack() -> None:
    blocks = [Block("labels", Fraction(9, 10), cells=1), Block("pixels", Fraction(7, 10), cells=2)]
    assert set(splits(2, blocks)) == {(0, 2), (1, 1)}
    assert set(splits(9, blocks)) == {(1, 2)}
    assert joint_threshold(2, blocks) == split_threshold((1, 1), blocks)


def test_the_region_is_what_the_thresholds_say() -> None:
    blocks = [Block("a", Fraction(9, 10), cells=50), Block("b", Fraction(7, 10), 4), Block("c", Fraction(8, 10))]
    low = Fraction(9931, 10000)
    region = certified_region(low, blocks)
    for split in product(range(6), repeat=3):
        inside = any(all(a <= b for a, b in zip(split, top, strict=True)) for top in region)
        assert inside == (low > split_threshold(split, blocks)), split
    assert certified_region(Fraction(1, 2), blocks) == ()


def test_maximal_splits_of_a_staircase() -> None:
    assert set(maximal_splits(lambda s: s[0] * 2 + s[1] <= 4, (9, 9))) == {(0, 4), (1, 2), (2, 0)}


@pytest.mark.parametrize(
    ("keep", "domain", "said"),
    [(0.5, 2, "1/2"), (0.1, 10, "1/10"), (1, 2, "less than 1"), (0.9, 1, "at least 2"), ("x", 2, "number")],
)
def test_noise_that_certifies_nothing_is_refused(keep: float, domain: int, said: str) -> None:
    with pytest.raises(DoorwardError, match=said):
        threshold(1, keep, domain)


def test_other_bad_input() -> None:
    with pytest.raises(DoorwardError, match="radius -1"):
        threshold(-1, 0.9)
    with pytest.raises(DoorwardError, match="probabilities"):
        is_certified(Fraction(2), Fraction(0), 1, 0.9)
    with pytest.raises(DoorwardError, match="one per block"):
        split_threshold((1,), [])
    with pytest.raises(DoorwardError, match="at least one"):
        joint_threshold(1, [])
    with pytest.raises(DoorwardError, match="cells"):
        Block("labels", Fraction(9, 10), cells=-1)


@pytest.mark.parametrize("text", ["1e-30000000", "1E+999999999", "9" * 2000, "1/0"])
def test_a_number_that_would_take_for_ever_is_refused_at_once(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(DoorwardError, match="expected a number"):
        threshold(1, text)
    assert time.perf_counter() - start < 1
