"""Counts of noisy ones, drawn from their own distribution instead of cell by cell.

Of n binary cells, k hold a 1. After flip noise the number of ones is Bin(k, beta) + Bin(n - k, 1 - beta). Learners that
see the training set through such counts alone (`nearest_centroid`, `naive_bayes`) need one draw per pixel and class
instead of one per pixel and image. The draw is exact: a uniform number is compared with the cumulative probabilities,
which are integers over 2^(32 n), and as many of its bits are drawn as the comparison needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from doorward.certification.smoothing.noise import COUNTS, KEEP_BITS, MORE_COUNTS, spare_words, words

MOST_CELLS = 127  # a count and a mark fit in one byte
_OPEN = 0x80  # the mark: the first bits leave the count open


def distributions(n: int, keep: Fraction) -> Iterator[list[int]]:
    """For k = 0..n, the probabilities of 0..n ones in units of 2^-(32 n); they are exact."""
    one = 1 << KEEP_BITS
    stay = int(keep * one)
    weights = [1]
    for _ in range(n):
        weights = _times(weights, stay, one - stay)
    yield weights
    for _ in range(n):  # one cell more that holds a 1, one less that holds a 0
        weights = _times(_divided(weights, stay, one - stay), one - stay, stay)
        yield weights


def _times(weights: list[int], zero: int, one: int) -> list[int]:
    """One cell more, which shows 0 and 1 with these weights."""
    return [a * zero + b * one for a, b in zip([*weights, 0], [0, *weights], strict=True)]


def _divided(weights: list[int], zero: int, one: int) -> list[int]:
    """The inverse of `_times`."""
    quotient: list[int] = []
    for weight in weights[:-1]:
        quotient.append((weight - one * (quotient[-1] if quotient else 0)) // zero)
    return quotient


@lru_cache(maxsize=1024)
def _cumulative(n: int, k: int, keep: Fraction) -> list[int]:
    return list(accumulate(list(distributions(n, keep))[k]))


class CountSampler:
    """Draws counts for any n <= 127; its tables grow when an n first occurs.

    Args:
        keep: beta.
        guide_bits: bits, at most 16, that settle most draws by one look into a table.
        more_bits: bits, at most 64, that settle nearly all the others; beyond them exact numbers are compared.
    """

    def __init__(self, keep: Fraction, guide_bits: int = 12, more_bits: int = 64):
        self.keep, self.guide_bits, self.more_bits = keep, guide_bits, more_bits
        self._first_row = np.full(MOST_CELLS + 1, -1, dtype=np.int32)
        self._guide = np.empty((0, 1 << guide_bits), dtype=np.uint8)
        self._upper = np.empty((0, MOST_CELLS + 1), dtype=np.uint32)  # cumulative probabilities: their first bits
        self._lower = np.empty((0, MOST_CELLS + 1), dtype=np.uint64)  # and the bits after those

    def draw(self, n: NDArray[np.int64], k: NDArray[np.int32], seed: int, start: int, stop: int) -> NDArray[np.uint8]:
        """Counts uint8 ``[trials, K, cells]`` of ones among ``n`` cells, ``k`` of which hold a 1 without noise.

        Args:
            n: ``[trials, K]``; k: ``[trials, K, cells]``.
        """
        for size in map(int, np.flatnonzero(np.bincount(n.reshape(-1), minlength=MOST_CELLS + 1))):
            if self._first_row[size] < 0:
                self._add(size)
        cells = k.shape[1] * k.shape[2]
        first = words(seed, COUNTS, start, stop, -(-cells // 4)).view(np.uint16)[:, :cells]
        first = np.ascontiguousarray(first).reshape(-1) >> np.uint16(16 - self.guide_bits)
        row = (self._first_row[n][:, :, None] + k).reshape(-1)
        count = self._guide.reshape(-1).take((row << self.guide_bits) + first)
        left = np.flatnonzero(count >= _OPEN)
        if len(left):
            more = spare_words(seed, COUNTS, start, stop, cells, left // cells) >> np.uint64(64 - self.more_bits)
            settled, open_ = self._settle(row[left], first[left], more, count[left] - np.uint8(_OPEN))
            for i in map(int, np.flatnonzero(open_)):
                trial, cell = divmod(int(left[i]), cells)
                known = (int(first[left[i]]) << self.more_bits) + int(more[i])
                cells_in_all, ones = int(n.reshape(-1)[left[i] // k.shape[2]]), int(k.reshape(-1)[left[i]])
                settled[i] = self._exact(cells_in_all, ones, known, seed, start + trial, cell)
            count[left] = settled
        return count.reshape(k.shape)

    def _settle(
        self, row: NDArray[np.int32], first: NDArray[np.uint16], more: NDArray[np.uint64], count: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Counts by the next bits, and which of them even those leave open."""
        open_ = np.zeros(len(row), dtype=bool)
        active = np.arange(len(row))
        while len(active):
            upper = self._upper[row[active], count[active]] == first[active]
            lower = self._lower[row[active], count[active]]
            open_[active[upper & (lower == more[active])]] = True
            active = active[upper & (lower < more[active])]
            count[active] += 1
        return count, open_

    def _exact(self, n: int, k: int, known: int, seed: int, trial: int, cell: int) -> int:
        """The count when the number drawn so far agrees with a cumulative probability: draw its other bits."""
        bits = self.guide_bits + self.more_bits
        for word in words(seed, (MORE_COUNTS << 32) + cell, trial, trial + 1, n // 2 + 1)[0]:
            known, bits = (known << 64) + int(word), bits + 64  # 32 n bits settle it for sure
        return sum(bound << bits <= known << (KEEP_BITS * n) for bound in _cumulative(n, k, self.keep))

    def _add(self, n: int) -> None:
        """Tables for n cells and every k: rows ``first_row[n] + k``."""
        cells = 1 << self.guide_bits
        guide = np.empty((n + 1, cells), dtype=np.uint8)
        upper = np.full((n + 1, MOST_CELLS + 1), cells, dtype=np.uint32)
        lower = np.zeros((n + 1, MOST_CELLS + 1), dtype=np.uint64)
        bits, mask = self.guide_bits + self.more_bits, (1 << self.more_bits) - 1
        for k, weights in enumerate(distributions(n, self.keep)):
            bounds = [(total << bits) >> (KEEP_BITS * n) for total in accumulate(weights)]
            upper[k, : n + 1] = [bound >> self.more_bits for bound in bounds]
            lower[k, : n + 1] = [bound & mask for bound in bounds]
            inside = np.bincount(upper[k, : n + 1], minlength=cells + 1)[:cells]
            below = (np.cumsum(inside) - inside).astype(np.uint8)
            guide[k] = np.where(inside > 0, below | _OPEN, below)
        self._first_row[n] = len(self._guide)
        self._guide = np.concatenate([self._guide, guide])
        self._upper = np.concatenate([self._upper, upper])
        self._lower = np.concatenate([self._lower, lower])


@lru_cache(maxsize=8)
def sampler(keep: Fraction) -> CountSampler:
    """The sampler of one beta, with the tables that it has made so far."""
    return CountSampler(keep)
