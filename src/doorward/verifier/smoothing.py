"""Labels and radii of flip smoothing, from votes and noise: integers only, by another algorithm than the maker's."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate, product
from typing import Any

from doorward.verifier.fields import ALPHA_DIGITS, noise, ratio
from doorward.verifier.work import Work

_SCALE = 1 << 220
Cell = tuple[Fraction, int]  # keep probability and domain size
_Masses = dict[int, int]  # by how often more the clean value shows than the attacked one: probability, unscaled


def derive(c: dict[str, Any], work: Work) -> tuple[list[int], list[int], list[int]]:
    """Labels, radii and joint radii that follow from checked fields."""
    trials, alpha, votes = c["trials"], ratio(c["alpha"], "alpha", ALPHA_DIGITS), c["votes"]
    groups: dict[Cell, int | None] = {}  # blocks of equal noise count together; None: any number of cells
    for keep, domain, cells in noise(c):
        known = groups.get((keep, domain), 0)
        groups[keep, domain] = None if cells is None or known is None else known + cells
    tops = [max(row) for row in votes]
    levels, most = (alpha, alpha / len(votes)), max(tops)
    tables: tuple[list[int], list[int]] = ([], [])
    open_ = [0, 1]
    for t in _thresholds(groups, work):
        for which in list(open_):
            least = tables[which][0] if tables[which] else 0
            needed = _votes(trials, t, levels[which], least, work)
            if needed is None or needed > most:
                open_.remove(which)
            else:
                tables[which].append(needed)
        if not open_:
            break
    own, joint = ([bisect_right(_never_falling(table), top) - 1 for top in tops] for table in tables)
    return [row.index(top) if r >= 0 else -1 for row, top, r in zip(votes, tops, own, strict=True)], own, joint


def _never_falling(table: list[int]) -> list[int]:
    """A radius counts only when all smaller ones hold too."""
    return list(accumulate(table, max))


def _thresholds(groups: dict[Cell, int | None], work: Work) -> Iterator[Fraction]:
    """For 0, 1, 2, ... changed cells: what the smoothed probability must exceed, for the worst split over the groups.

    Ends where the groups have no more cells.
    """
    cells = list(groups)
    powers: list[dict[int, _Masses]] = [{0: {0: 1}} for _ in cells]
    radius = 0
    while True:
        limits = [radius if n is None else min(n, radius) for n in groups.values()]
        if sum(limits) < radius:
            return
        for cell, known in zip(cells, powers, strict=True):
            if radius and limits[cells.index(cell)] == radius:
                known[radius] = _one_more(known[radius - 1], cell, work)
            if len(cells) == 1 and radius:
                del known[radius - 1]
        work.do(radius ** (len(cells) - 1))
        splits = (s for s in product(*(range(n + 1) for n in limits[:-1])) if 0 <= radius - sum(s) <= limits[-1])
        yield max(_fill(cells, powers, (*s, radius - sum(s)), work) for s in splits)
        radius += 1


def _one_more(masses: _Masses, cell: Cell, work: Work) -> _Masses:
    """One changed cell more, whose noise shows the clean value, the attacked one, or another."""
    stay, move, other, _ = _units(cell)
    work.do(len(masses) * (16 + max(masses.values()).bit_length() // 32))
    grown: _Masses = {}
    for balance, mass in masses.items():
        for step, chance in ((1, stay), (-1, move), (0, other)):
            if chance:
                grown[balance + step] = grown.get(balance + step, 0) + mass * chance
    return grown


def _units(cell: Cell) -> tuple[int, int, int, int]:
    """Chances that noise shows the clean value, the attacked one, any other, and what they are over."""
    keep, domain = cell
    move = keep.denominator - keep.numerator
    return keep.numerator * (domain - 1), move, (domain - 2) * move, keep.denominator * (domain - 1)


def _fill(cells: list[Cell], powers: list[dict[int, _Masses]], split: tuple[int, ...], work: Work) -> Fraction:
    """Neyman-Pearson: the regions in falling order of likelihood ratio, until half of the attacked mass is taken."""
    regions, total = [(1, 1)], 1  # mass under the clean input, and under the attacked one
    for cell, known, changed in zip(cells, powers, split, strict=True):
        masses, size = known[changed], _units(cell)[3] ** changed
        work.do(len(regions) * len(masses) * (16 + (total.bit_length() + size.bit_length()) // 32))
        order = sorted(masses, reverse=True)  # of one group alone this is the order of the ratios
        regions = [(p * masses[b], q * masses[-b]) for p, q in regions for b in order]
        total *= size
    if sum(changed > 0 for changed in split) > 1:
        work.do(len(regions) * (200 + total.bit_length() // 4))
        regions.sort(key=lambda region: Fraction(*region), reverse=True)
    taken = left = Fraction(0)
    p_taken, q_taken = 0, 0
    for p, q in regions:
        if 2 * (q_taken + q) >= total:
            left = Fraction(total - 2 * q_taken, 2 * q)
            taken = (p_taken + left * p) / total
            break
        p_taken, q_taken = p_taken + p, q_taken + q
    return taken


def _threshold(cells: list[Cell]) -> Fraction:
    """The threshold of these changed cells, whatever their number and noise."""
    kinds = list(dict.fromkeys(cells))
    powers: list[dict[int, _Masses]] = []
    for kind in kinds:
        known: dict[int, _Masses] = {0: {0: 1}}
        for changed in range(cells.count(kind)):
            known[changed + 1] = _one_more(known[changed], kind, Work())
        powers.append(known)
    return _fill(kinds, powers, tuple(map(cells.count, kinds)), Work())


def _votes(trials: int, t: Fraction, alpha: Fraction, least: int = 0, work: Work | None = None) -> int | None:
    """Smallest k with P(Bin(N, t) >= k) + P(Bin(N, t) <= N - (least or k)) <= alpha; terms relative to the mode.

    A term j steps from the mode is rounded up, j too large at most, which bounds the sum of all terms from below.
    """
    mode = min(trials, (trials + 1) * t.numerator // t.denominator)
    enough = max(1, int(_SCALE * alpha) >> 100)
    steps, sides = 64 + t.denominator.bit_length() // 32, []
    for step in (1, -1):
        i, terms, odds = mode, [_SCALE], (t / (1 - t)) ** step
        while terms[-1] > enough and 0 <= i + step <= trials:
            n, d = (trials - i, i + 1) if step == 1 else (i, trials - i + 1)
            terms.append(-(-terms[-1] * n * odds.numerator // (d * odds.denominator)))
            i += step
            if work is not None:
                work.do(steps)
        # Beyond the last term each is smaller than the one before, and there are fewer than N of them.
        rest = (terms[-1] if 0 < i < trials else 0) * trials
        sides.append((list(accumulate(reversed(terms), initial=rest))[::-1], terms))
    (above, up), (below, down) = sides
    total = sum(max(0, w - j) for terms in (up, down) for j, w in enumerate(terms)) - _SCALE
    for k in range(max(least, -(-(trials - 1) * t.numerator // t.denominator) + 1), trials + 1):
        high = above[min(k - mode, len(above) - 1)] if k >= mode else above[0] + sum(down[1 : mode - k + 1])
        low = below[min(mode - (trials - (least or k)), len(below) - 1)]
        if (high + low) * alpha.denominator <= total * alpha.numerator:
            return k
        if k - mode > len(above) + len(below):
            return None
    return None
