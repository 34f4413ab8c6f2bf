"""What a lower bound on a smoothed probability is worth: the l0 certificate of Lee et al., in exact rationals.

The noise keeps each cell with probability beta and moves it to each of the other d - 1 values with probability
theta = (1 - beta) / (d - 1). Only the r cells that the attacker changed tell the clean input from the attacked one;
all others cancel in the likelihood ratio, so that a certificate costs O(r^2) and does not depend on the number of
cells. The derivation is in ``docs/certification-proof.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from doorward.core.errors import DoorwardError, show

Number = int | float | str | Decimal | Fraction
Split = tuple[int, ...]
Predicate = Callable[[Split], bool]

# Likelihood regions in falling order of P / Q: (P mass, Q mass), integers over one common total.
_Regions = tuple[tuple[int, int], ...]


def rational(value: Number, what: str = "number") -> Fraction:
    """An exact rational; a float is read as the decimal that it prints as, so 0.9 is 9/10."""
    try:
        return value if isinstance(value, Fraction) else Fraction(_bounded(str(value)))
    except (ValueError, ZeroDivisionError):
        raise DoorwardError(f"{what} {show(repr(value))}; expected a number such as 0.9 or 9/10") from None


def _bounded(text: str) -> str:
    """The text of a number, but for one so long or of such an exponent that it would take for ever to become one."""
    _, _, exponent = text.lower().partition("e")
    if len(text) > 1000 or len(exponent) > 5:
        raise ValueError("too long")
    return text


@dataclass(frozen=True)
class Block:
    """A block of cells that share their noise.

    Args:
        name: what the cells are, for tables (``training pixels``, ``training labels``, ``test pixels``).
        keep: beta, the probability that a cell keeps its value; 1/d < beta < 1.
        domain: d, the number of values a cell can have; at least 2.
        cells: how many cells there are, when known: no attack changes more.
    """

    name: str
    keep: Fraction
    domain: int = 2
    cells: int | None = None

    def __post_init__(self) -> None:
        check_noise(self.keep, self.domain)
        if self.cells is not None and self.cells < 0:
            raise DoorwardError(f"{self.name}: {self.cells} cells; expected 0 or more")


def check_noise(keep: Fraction, domain: int) -> None:
    """Refuse noise that certifies nothing.

    Raises:
        DoorwardError: d < 2, beta <= 1/d (the noisy cell says nothing about the cell, or lies), beta >= 1 (no noise).
    """
    if domain < 2:
        raise DoorwardError(f"domain size {domain}; expected at least 2 values per cell")
    if not Fraction(1, domain) < keep < 1:
        raise DoorwardError(f"keep probability {float(keep):g}; expected more than 1/{domain} and less than 1")


def check_radius(radius: int) -> int:
    """The radius, when it is a whole number of 0 or more."""
    if radius < 0 or radius != int(radius):
        raise DoorwardError(f"radius {radius}; expected a whole number of 0 or more")
    return int(radius)


@lru_cache(maxsize=4096)
def _block_regions(radius: int, keep: Fraction, domain: int) -> tuple[_Regions, int]:
    """Regions of ``radius`` changed cells of one block, and the total that the masses are over.

    Of the r cells let a show the clean value, b the attacked one, r - a - b another; the ratio is (beta/theta)^(a-b):
    P_s = sum over a - b = s of r! / (a! b! (r-a-b)!) beta^a theta^b ((d-2) theta)^(r-a-b), and Q_s = P_{-s}.
    """
    stay = keep.numerator * (domain - 1)
    move = keep.denominator - keep.numerator
    other = (domain - 2) * move
    mass = [0] * (2 * radius + 1)  # P_s at index s + r
    for a in range(radius + 1):
        for b in range(radius - a + 1):
            rest = radius - a - b
            if rest and not other:
                continue
            ways = math.comb(radius, a) * math.comb(radius - a, b)
            mass[a - b + radius] += ways * stay**a * move**b * other**rest
    regions = tuple((mass[radius + s], mass[radius - s]) for s in range(radius, -radius - 1, -1) if mass[radius + s])
    return regions, (keep.denominator * (domain - 1)) ** radius


@lru_cache(maxsize=4096)
def _joint_regions(cells: tuple[tuple[Fraction, int, int], ...]) -> tuple[_Regions, int]:
    """Regions of several blocks at once, given as (keep, domain, changed cells): products, sorted by their ratio."""
    joined: _Regions = ((1, 1),)
    total = 1
    for keep, domain, changed in cells:
        regions, size = _block_regions(changed, keep, domain)
        joined = tuple((p * u, q * v) for p, q in joined for u, v in regions)
        total *= size
    if len(cells) > 1:
        joined = tuple(sorted(joined, key=lambda region: Fraction(*region), reverse=True))
    return joined, total


def _fill(regions: Sequence[tuple[int, int]], total: int, amount: Fraction, by: int) -> Fraction:
    """Take regions in order until side ``by`` (0: P, 1: Q) has mass ``amount``; the mass of the other side.

    The last region is taken in part: within a region P and Q are proportional, so any part of it can be had.
    """
    taken = other = 0
    for region in regions:
        if (taken + region[by]) >= amount * total:
            part = (amount * total - taken) / region[by]
            return (other + part * region[1 - by]) / total
        taken += region[by]
        other += region[1 - by]
    return Fraction(1)


@lru_cache(maxsize=4096)
def _threshold(cells: tuple[tuple[Fraction, int, int], ...]) -> Fraction:
    regions, total = _joint_regions(cells)
    return _fill(regions, total, Fraction(1, 2), by=1)


def threshold(radius: int, keep: Number, domain: int = 2) -> Fraction:
    """The lower bound on the smoothed probability beyond which ``radius`` changed cells cannot change the label.

    Lee, Yuan, Chang and Jaakkola 2019, rho_r^{-1}(1/2). A probability *above* the threshold certifies the radius; at
    the threshold itself the worst case is a tie. It never falls with the radius, and is 1/2 at radius 0.

    Args:
        radius: changed cells r, 0 or more.
        keep: beta, the probability that a cell keeps its value; 1/d < beta < 1.
        domain: d, values per cell.

    Raises:
        DoorwardError: a radius below 0, or noise that certifies nothing.
    """
    beta = rational(keep, "keep probability")
    check_noise(beta, domain)
    return _threshold(((beta, domain, check_radius(radius)),))


def worst_case(low: Fraction, radius: int, keep: Number, domain: int = 2) -> Fraction:
    """The smallest smoothed probability that ``radius`` changed cells leave of one that is ``low`` (Neyman-Pearson)."""
    beta = rational(keep, "keep probability")
    check_noise(beta, domain)
    regions, total = _block_regions(check_radius(radius), beta, domain)
    return _fill(regions, total, low, by=0)


def is_certified(low: Fraction, high: Fraction, radius: int, keep: Number, domain: int = 2) -> bool:
    """Multi-class form: do ``radius`` changed cells leave the top class ahead of every other one?

    Args:
        low: lower bound on the probability of the top class.
        high: upper bound on that of every other class. ``1 - low`` gives the same answer as `threshold`.

    The top class loses the likeliest regions first, another class gains in the least likely ones first.
    """
    if not (0 <= low <= 1 and 0 <= high <= 1):
        raise DoorwardError(f"bounds {low} and {high}; expected probabilities between 0 and 1")
    beta = rational(keep, "keep probability")
    check_noise(beta, domain)
    regions, total = _block_regions(check_radius(radius), beta, domain)
    rising = tuple(reversed(regions))
    return _fill(regions, total, low, by=0) > _fill(rising, total, min(high, 1 - low), by=0)


def split_threshold(split: Split, blocks: Sequence[Block]) -> Fraction:
    """`threshold` for an attack that changes ``split[b]`` cells of block b; blocks of equal noise count together."""
    if len(split) != len(blocks):
        raise DoorwardError(f"a split into {len(split)} parts; expected {len(blocks)}, one per block")
    together: dict[tuple[Fraction, int], int] = {}
    for changed, block in zip(split, blocks, strict=True):
        if changed:
            key = (block.keep, block.domain)
            together[key] = together.get(key, 0) + check_radius(changed)
    return _threshold(tuple((keep, domain, changed) for (keep, domain), changed in sorted(together.items())))


def splits(radius: int, blocks: Sequence[Block]) -> Iterator[Split]:
    """Every way to change ``radius`` cells in all, or all cells when there are fewer."""

    def rest(left: int, first: int) -> Iterator[Split]:
        limit = blocks[first].cells
        most = left if limit is None else min(left, limit)
        if first == len(blocks) - 1:
            yield (most,)
            return
        for here in range(most + 1):
            for tail in rest(left - here, first + 1):
                yield (here, *tail)

    if not blocks:
        raise DoorwardError("no noise blocks; expected at least one")
    limits = [block.cells for block in blocks]
    known = [limit for limit in limits if limit is not None]
    most = min(radius, sum(known)) if len(known) == len(limits) else radius
    for split in rest(check_radius(radius), 0):
        if sum(split) == most:
            yield split


def joint_threshold(radius: int, blocks: Sequence[Block]) -> Fraction:
    """`threshold` for the worst split of ``radius`` changed cells over the blocks."""
    return max(split_threshold(split, blocks) for split in splits(radius, blocks))


def certified_region(low: Fraction, blocks: Sequence[Block], most: int = 64) -> tuple[Split, ...]:
    """The largest attacks, block by block, that a probability of at least ``low`` withstands.

    Returns:
        Pareto-maximal splits (cells changed in each block). Every attack that is nowhere larger than one of them
        is certified. Empty when not even the unattacked label is. No part exceeds ``most``.
    """
    limits = [min(most, most if block.cells is None else block.cells) for block in blocks]

    def holds(split: Split) -> bool:
        return low > split_threshold(split, blocks)

    return maximal_splits(holds, limits)


def maximal_splits(holds: Predicate, limits: Sequence[int]) -> tuple[Split, ...]:
    """Pareto-maximal tuples within ``limits`` for which ``holds``, a predicate that larger tuples never regain."""
    found: list[Split] = []

    def search(prefix: Split) -> None:
        depth = len(prefix)
        padding = (0,) * (len(limits) - depth - 1)
        last = depth == len(limits) - 1
        value = 0
        while value <= limits[depth] and holds((*prefix, value, *padding)):
            if not last:
                search((*prefix, value))
            value += 1
        if last and value:
            found.append((*prefix, value - 1))

    search(())
    return tuple(s for s in found if not any(o != s and all(a >= b for a, b in zip(o, s, strict=True)) for o in found))
