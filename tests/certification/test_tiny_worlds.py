"""Flip smoothing where everything can be enumerated: all noise, all attacks, several learners."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from doorward.certification.smoothing.radius import Block, split_threshold, threshold, worst_case

Vector = tuple[int, ...]
Learner = Callable[[Vector], int]


def nearest(v: Vector) -> int:
    """1-NN on two training images of one pixel: v = (X1, X2, y1, y2, x)."""
    return v[2] if abs(v[0] - v[4]) <= abs(v[1] - v[4]) else v[3]


def majority(v: Vector) -> int:
    return int(sum(v) * 2 > len(v) * (max(v) or 1))


def label_of_first(v: Vector) -> int:
    return v[2]


def parity(v: Vector) -> int:
    return sum(v) % 2


def pseudo_random(v: Vector) -> int:
    return int(np.random.default_rng([*v, 17]).random() < 0.95)


LEARNERS = [nearest, majority, label_of_first, parity, pseudo_random]


def chance(clean: Vector, noisy: Vector, noise: list[tuple[Fraction, int]]) -> Fraction:
    result = Fraction(1)
    for a, b, (keep, domain) in zip(clean, noisy, noise, strict=True):
        result *= keep if a == b else (1 - keep) / (domain - 1)
    return result


def smoothed(f: Learner, noise: list[tuple[Fraction, int]]) -> dict[Vector, Fraction]:
    """P(f = 1) at every point, in rationals."""
    points = list(product(*(range(d) for _, d in noise)))
    ones = [z for z in points if f(z) == 1]
    return {v: sum((chance(v, z, noise) for z in ones), Fraction(0)) for v in points}


@pytest.mark.parametrize("f", LEARNERS)
@pytest.mark.parametrize(("keep", "domain", "cells"), [("9/10", 2, 5), ("7/10", 2, 5), ("2/3", 3, 4)])
def test_no_certified_point_ever_changes(f: Learner, keep: str, domain: int, cells: int) -> None:
    beta = Fraction(keep)
    if domain > 2 and f in (nearest, label_of_first):
        return  # their labels are binary
    p = smoothed(f, [(beta, domain)] * cells)
    certified = 0
    for v, w in product(p, repeat=2):
        radius = sum(a != b for a, b in zip(v, w, strict=True))
        for here, there in ((p[v], p[w]), (1 - p[v], 1 - p[w])):
            assert there >= worst_case(here, radius, beta, domain)
            if here > threshold(radius, beta, domain):
                assert there > Fraction(1, 2)
                certified += radius > 0
    assert (certified > 0) == (f in (majority, pseudo_random))  # the others hang on one cell, and rightly get nothing


@pytest.mark.parametrize(("keep", "domain", "radius"), [("9/10", 2, 2), ("3/4", 2, 3), ("3/5", 3, 2), ("1/2", 4, 2)])
def test_the_bound_is_attained(keep: str, domain: int, radius: int) -> None:
    """The Neyman-Pearson function on the likeliest regions loses exactly as much as the bound says."""
    noise = [(Fraction(keep), domain)] * (radius + 1)
    clean, attacked = (0,) * (radius + 1), (1,) * radius + (0,)

    def ratio(z: Vector) -> int:
        return sum(z[i] == 0 for i in range(radius)) - sum(z[i] == 1 for i in range(radius))

    for level in range(-radius, radius + 1):
        p = smoothed(lambda z, level=level: int(ratio(z) >= level), noise)  # type: ignore[misc]
        assert p[attacked] == worst_case(p[clean], radius, Fraction(keep), domain)


@pytest.mark.parametrize("f", [nearest, majority, pseudo_random])
def test_blocks_with_noise_of_their_own(f: Learner) -> None:
    blocks = [Block("pixels", Fraction(9, 10)), Block("labels", Fraction(3, 4)), Block("test", Fraction(4, 5))]
    sizes = (2, 2, 1)
    noise = [(b.keep, 2) for b, n in zip(blocks, sizes, strict=True) for _ in range(n)]
    p = smoothed(f, noise)
    certified = 0
    for v, w in product(p, repeat=2):
        changed = [a != b for a, b in zip(v, w, strict=True)]
        split = (sum(changed[:2]), sum(changed[2:4]), sum(changed[4:]))
        for here, there in ((p[v], p[w]), (1 - p[v], 1 - p[w])):
            if here > split_threshold(split, blocks):
                assert there > Fraction(1, 2)
                certified += sum(split) > 0
    assert (certified > 0) == (f is not nearest)
