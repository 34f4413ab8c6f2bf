"""The flip noise of randomized smoothing, drawn exactly and from counters.

Equation 2 of Wang, Cao, Jia and Gong 2020: a cell keeps its value with probability beta and takes each of the
other d - 1 values with probability (1 - beta) / (d - 1). The noise that is drawn is the noise that is certified:
beta is a multiple of 2^-32, drawn by comparing integers, and that very rational goes into the certificate.

Every random word comes from Philox4x64-10 (Salmon et al., SC 2011), which turns (key, counter) into words. The key is
(seed, stream), the counter runs on from trial to trial: trial j depends on (seed, j) and on the number of cells,
never on which trials are drawn together with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from doorward.certification.smoothing.radius import rational
from doorward.core.errors import DoorwardError

Words = NDArray[np.uint64]
KEEP_BITS = 32
_ONE = 1 << KEEP_BITS
_LOW_24 = np.uint64(0xFFFFFF)
_WORDS_PER_COUNT = 4  # Philox4x64 gives four words per count

# One stream of random words per use, so that no word serves twice.
TRAIN, LABELS, TEST, INIT, USER, COUNTS, SPARE, MORE_SPARE, MORE_COUNTS = range(1, 10)


def dyadic(keep: float | str | Decimal | Fraction, domain: int = 2) -> Fraction:
    """The multiple of 2^-32 nearest to the keep probability beta; a float is read as the decimal that it prints as.

    Raises:
        DoorwardError: beta <= 1/d (more noise than a uniform draw) or beta >= 1 (no noise), after rounding.
    """
    if domain < 2 or domain > 1 << 15:
        raise DoorwardError(f"domain size {domain}; expected 2 to {1 << 15} values per cell")
    exact = rational(keep, "keep probability")
    rounded = Fraction(round(exact * _ONE), _ONE)
    if not Fraction(1, domain) < min(exact, rounded) < 1 or rounded == 1:
        raise DoorwardError(f"keep probability {keep}; expected more than 1/{domain} and less than 1")
    return rounded


@dataclass(frozen=True)
class FlipNoise:
    """Noise on one block of cells: ``keep`` is beta, a multiple of 2^-32; ``domain`` is d, values 0..d-1."""

    keep: Fraction
    domain: int = 2

    def __post_init__(self) -> None:
        if dyadic(self.keep, self.domain) != self.keep:
            raise DoorwardError(f"keep probability {self.keep}; expected a multiple of 2^-32 (see `dyadic`)")

    @classmethod
    def of(cls, keep: float | str | Decimal | Fraction, domain: int = 2) -> FlipNoise:
        """Noise with beta rounded to the nearest multiple of 2^-32."""
        return cls(dyadic(keep, domain), domain)

    @property
    def keep_units(self) -> int:
        """beta in units of 2^-32."""
        return int(self.keep * _ONE)


@dataclass(frozen=True)
class Noise:
    """The noise of one certificate: on training pixels, training labels and test pixels."""

    train: FlipNoise
    labels: FlipNoise
    test: FlipNoise

    @classmethod
    def of(
        cls,
        keep: float | str | Decimal | Fraction,
        *,
        classes: int,
        domain: int = 2,
        keep_labels: float | str | Decimal | Fraction | None = None,
        keep_test: float | str | Decimal | Fraction | None = None,
    ) -> Noise:
        """One beta for all three blocks, unless labels or test pixels get their own."""
        labels = FlipNoise.of(keep if keep_labels is None else keep_labels, classes)
        test = FlipNoise.of(keep if keep_test is None else keep_test, domain)
        return cls(FlipNoise.of(keep, domain), labels, test)

    def json(self) -> dict[str, dict[str, int]]:
        """Each block as plain integers: numerator and denominator of beta, and the domain size."""
        return {
            name: {"keep_numerator": n.keep.numerator, "keep_denominator": n.keep.denominator, "domain": n.domain}
            for name, n in (("train", self.train), ("labels", self.labels), ("test", self.test))
        }


def check_seed(seed: int) -> int:
    """The seed, when it is one of 0 .. 2^64 - 1."""
    if not 0 <= seed < 1 << 64:
        raise DoorwardError(f"seed {seed}; expected 0 to 2^64 - 1")
    return seed


def words(seed: int, stream: int, start: int, stop: int, size: int, attempt: int = 0) -> Words:
    """The first ``size`` random words of the trials ``start..stop-1`` in one stream: uint64 ``[stop - start, size]``.

    ``size`` is part of what decides the words: a trial owns the same counts only while its size is the same.
    """
    counts = -(-size // _WORDS_PER_COUNT)
    generator = np.random.Philox(
        key=np.array([seed, stream], dtype=np.uint64),
        counter=np.array([start * counts, attempt, 0, 0], dtype=np.uint64),
    )
    raw = generator.random_raw((stop - start) * counts * _WORDS_PER_COUNT)
    return np.asarray(raw, dtype=np.uint64).reshape(stop - start, -1)[:, :size]


def shifts(noise: FlipNoise, seed: int, stream: int, start: int, stop: int, cells: int) -> NDArray[np.uint16]:
    """What is added (mod d) to each cell, equation 2: uint16 ``[trials, cells]``; 0 keeps the cell's value.

    The upper half of a word decides whether the cell is kept. A lower quarter picks one of the other d - 1 values:
    it is drawn again while it lies beyond the last whole multiple of d - 1, so that all are equally likely.
    """
    others = noise.domain - 1
    accepted = (1 << 16) // others * others
    drawn = words(seed, stream, start, stop, cells)
    changed = (drawn >> np.uint64(32)) >= noise.keep_units
    pick = (drawn & np.uint64(0xFFFF)).astype(np.uint16)
    attempt = 0
    while accepted < 1 << 16 and (again := pick >= accepted).any():
        attempt += 1
        more = words(seed, stream, start, stop, cells, attempt)
        pick[again] = (more[again] & np.uint64(0xFFFF)).astype(np.uint16)
    return np.asarray(np.where(changed, pick % np.uint16(others) + np.uint16(1), 0), dtype=np.uint16)


def flips(noise: FlipNoise, seed: int, stream: int, start: int, stop: int, cells: int) -> NDArray[np.uint8]:
    """`shifts` for two values, with a byte per cell instead of a word: uint8 ``[trials, cells]``, 1 flips the cell.

    The byte is the top of a 32-bit number that is compared with (1 - beta) 2^32. One byte in 256 equals the top of
    the threshold and leaves it open; only there are the other 24 bits drawn.
    """
    if noise.domain != 2:
        raise DoorwardError(f"domain size {noise.domain}; expected 2")
    threshold = _ONE - noise.keep_units
    top, rest = threshold >> 24, threshold & 0xFFFFFF
    bytes_ = words(seed, stream, start, stop, -(-cells // 8)).view(np.uint8)[:, :cells]
    flipped = (bytes_ < top).view(np.uint8)
    if rest:
        tied = np.flatnonzero((bytes_ == top).ravel())
        flipped.reshape(-1)[tied] = (spare_words(seed, stream, start, stop, cells, tied // cells) & _LOW_24) < rest
    return flipped


def spare_words(seed: int, stream: int, start: int, stop: int, cells: int, trial: NDArray[np.int64]) -> Words:
    """One more random word for each of a few cells, given by their trial (row, rising).

    The r-th of them in a trial owns the r-th spare word of that trial, whatever the other trials need.
    """
    count = np.bincount(trial, minlength=stop - start)
    rank = np.arange(len(trial)) - np.repeat(np.cumsum(count) - count, count)
    usual = cells // 128 + 64  # twice the mean and more; a trial that needs more than that draws on another stream
    spare = words(seed, (SPARE << 8) + stream, start, stop, usual)
    if count.max(initial=0) <= usual:
        return np.asarray(spare[trial, rank], dtype=np.uint64)
    drawn = spare[trial, np.minimum(rank, usual - 1)]
    for row in map(int, np.flatnonzero(count > usual)):
        more = words(seed, (MORE_SPARE << 8) + stream, start + row, start + row + 1, cells)[0]
        here = (trial == row) & (rank >= usual)
        drawn[here] = more[rank[here] - usual]
    return np.asarray(drawn, dtype=np.uint64)
