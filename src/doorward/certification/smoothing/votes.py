"""From a vote count to a radius: decided in integers, sound although one vote set picks the label and bounds it.

N independent trials vote; F_k(p) = P(Bin(N, p) >= k). A label with k or more votes is claimed to have a probability
above a threshold t >= 1/2. Whatever the true probabilities are, and however many labels there are,
* for one t chosen beforehand a false claim has probability at most F_k(t) + F_k(1 - t) (`votes_above`);
* when the votes also choose the largest t that they reach, at most F_k(t) + F_k0(1 - t), where k0 is what t = 1/2
  takes (`votes_above_any`): the wrong label needs no more than k0 votes to be claimed at radius 0.
Both rest on the convexity of F_k on [0, (k - 1)/(N - 1)]; ``docs/certification-proof.md`` has the proofs.

Every number here is rounded towards "not certified", and nothing is a float.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from doorward.certification.smoothing.radius import Block, Number, check_noise, joint_threshold, rational, threshold
from doorward.core.errors import DoorwardError

ABSTAIN = -1
"""What stands for "no label" among labels and for "no radius" among radii; it is never counted as correct."""

MAX_TRIALS = 10**9
_BITS = 256  # of a rounded number, relative
_STIRLING_FROM = 4096
_PI_BELOW = Fraction(31415926535897932384626433832795028841971693993751, 10**49)  # pi cut off after 49 decimals

Rounded = tuple[int, int]  # (m, e) for m 2^e, never below the number that it stands for


def _up(m: int, e: int = 0) -> Rounded:
    """Cut m 2^e to ``_BITS`` bits, upwards."""
    cut = m.bit_length() - _BITS
    return (m, e) if cut <= 0 else (-((-m) >> cut), e + cut)


def _up_ratio(value: Fraction) -> Rounded:
    """A positive rational, rounded upwards."""
    scale = max(0, _BITS + value.denominator.bit_length() - value.numerator.bit_length())
    return _up(-((-value.numerator << scale) // value.denominator), -scale)


def _times(x: Rounded, y: Rounded) -> Rounded:
    return _up(x[0] * y[0], x[1] + y[1])


def _power(x: Rounded, exponent: int) -> Rounded:
    """x to a whole power of 0 or more, rounded upwards at every multiplication."""
    result: Rounded = (1, 0)
    while exponent:
        if exponent & 1:
            result = _times(result, x)
        x = _times(x, x)
        exponent >>= 1
    return result


def _fixed(x: Rounded, bits: int) -> int:
    """x in units of 2^-bits, rounded upwards."""
    shift = x[1] + bits
    return x[0] << shift if shift >= 0 else -((-x[0]) >> -shift)


def _exp_up(x: Fraction) -> Rounded:
    """exp(x) for |x| <= 1/2, rounded upwards: ten Taylor terms, and what the others can be at most."""
    term = total = Fraction(1)
    for i in range(1, 11):
        term = term * x / i
        total += term
    return _up_ratio(total + abs(term))  # the rest is below |term|: each further term is less than 1/22 of the last


def _stirling(n: int) -> tuple[Fraction, Fraction]:
    """Bounds of log n! - log(sqrt(2 pi n) (n/e)^n): terms of an enveloping series (Robbins 1955 has the first)."""
    below = Fraction(1, 12 * n) - Fraction(1, 360 * n**3)
    return below, below + Fraction(1, 1260 * n**5)


def _binomial_up(n: int, k: int) -> Rounded:
    """C(n, k), rounded upwards; exact when k or n - k is small, by Stirling's series otherwise."""
    j = n - k
    if min(k, j) < _STIRLING_FROM:
        return _up(math.comb(n, k))
    square = Fraction(n, 2 * k * j) / _PI_BELOW
    scaled = square * (1 << 2 * _BITS)
    root = _up(math.isqrt(math.ceil(scaled)) + 1, -_BITS)
    correction = _exp_up(_stirling(n)[1] - _stirling(k)[0] - _stirling(j)[0])
    powers = _times(_power(_up_ratio(Fraction(n, k)), k), _power(_up_ratio(Fraction(n, j)), j))
    return _times(_times(root, correction), powers)


def _tails(trials: int, p: Fraction, first: int, alpha: Fraction, bits: int) -> list[int]:
    """Upper bounds of P(Bin(trials, p) >= k) for k = first, first + 1, ... in units of 2^-bits.

    ``first`` must lie above the mean, so that the terms fall. The list ends where the rest no longer matters;
    its last entry bounds the tail of every later k.
    """
    q = 1 - p
    mass = _times(
        _times(_power(_up_ratio(p), first), _power(_up_ratio(q), trials - first)), _binomial_up(trials, first)
    )
    term = _fixed(mass, bits)
    enough = max(1, math.floor(alpha * (1 << bits)) >> 90)
    odds, shift = _up_ratio(p / q)
    shift = -shift
    terms = []
    k = first
    while term > enough and k < trials:
        terms.append(term)
        step = (trials - k) * odds
        term = -((-term * step) // ((k + 1) << shift)) if shift >= 0 else -((-term * (step << -shift)) // (k + 1))
        k += 1
    ratio = Fraction((trials - k) * p, (k + 1) * q)  # of the next terms, at most
    total = math.ceil(term / (1 - ratio))
    tails = [total]
    for value in reversed(terms):
        total += value
        tails.append(total)
    tails.reverse()
    return tails


@lru_cache(maxsize=1024)
def votes_above(trials: int, t: Fraction, alpha: Fraction) -> int | None:
    """The smallest k with F(t) + F(1 - t) <= alpha, F(p) = P(Bin(trials, p) >= k); None when no count suffices.

    Args:
        trials: votes cast, N.
        t: threshold to be exceeded, 1/2 <= t < 1.
        alpha: admitted probability of a false claim, 0 < alpha < 1.
    """
    check_trials(trials)
    check_alpha(alpha)
    if not Fraction(1, 2) <= t < 1:
        raise DoorwardError(f"threshold {t}; expected at least 1/2 and less than 1")
    bits = 192 + alpha.denominator.bit_length()
    limit = math.floor(alpha * (1 << bits))
    first = math.ceil((trials - 1) * t) + 1  # where F is convex up to t, and past half of the votes
    ours = _tails(trials, t, first, alpha, bits)
    theirs = ours if t == Fraction(1, 2) else _tails(trials, 1 - t, first, alpha, bits)
    for k in range(first, trials + 1):
        place = k - first
        failure = ours[min(place, len(ours) - 1)] + theirs[min(place, len(theirs) - 1)]
        if failure <= limit:
            return k
        if place >= len(ours) - 1 and place >= len(theirs) - 1:
            break
    return None


@lru_cache(maxsize=1024)
def votes_above_any(trials: int, t: Fraction, alpha: Fraction) -> int | None:
    """As `votes_above`, for claims whose threshold the votes choose too: F_k(t) + F_k0(1 - t) <= alpha, k >= k0.

    It never falls with t, so that all claims made with counts from this function, for any set of thresholds, are
    false together with probability at most alpha.
    """
    half = Fraction(1, 2)
    least = votes_above(trials, half, alpha)
    if least is None or t == half:
        return least
    bits = 192 + alpha.denominator.bit_length()
    first = max(least, math.ceil((trials - 1) * t) + 1)
    ours = _tails(trials, t, first, alpha, bits)
    limit = math.floor(alpha * (1 << bits)) - _tails(trials, 1 - t, least, alpha, bits)[0]
    place = next((i for i, failure in enumerate(ours) if failure <= limit), len(ours))
    return first + place if place < len(ours) and first + place <= trials else None


def check_trials(trials: int) -> None:
    """Refuse a number of trials that no vote can be counted with."""
    if not 1 <= trials <= MAX_TRIALS:
        raise DoorwardError(f"{trials} trials; expected 1 to {MAX_TRIALS:,}")


def check_alpha(alpha: Fraction) -> None:
    """Refuse a failure probability that guarantees nothing, or that cannot be reached."""
    if not 0 < alpha < 1:
        raise DoorwardError(f"alpha {float(alpha):g}; expected a failure probability above 0 and below 1")


def votes_needed(
    trials: int, radius: int, keep: Number, domain: int = 2, alpha: Number = Fraction(1, 1000)
) -> int | None:
    """The smallest number of votes that certifies ``radius``, chosen beforehand, with failure probability ``alpha``.

    Args:
        trials: votes cast in all, N, 1 to 10^9.
        radius: cells the attacker may change.
        keep: beta; ``domain``: d, values per cell.
        alpha: probability with which a false claim is admitted, 0 < alpha < 1.

    Returns:
        The count, or None when not even all votes suffice; `trials_needed` then tells how many trials it takes.

    Raises:
        DoorwardError: numbers out of range.
    """
    return votes_above(trials, threshold(radius, keep, domain), rational(alpha, "alpha"))


def trials_needed(radius: int, keep: Number, domain: int = 2, alpha: Number = Fraction(1, 1000)) -> int:
    """The smallest number of trials that can certify ``radius``, all of them voting alike: t^N + (1 - t)^N <= alpha."""
    return trials_above(threshold(radius, keep, domain), rational(alpha, "alpha"))


def trials_above(t: Fraction, alpha: Fraction) -> int:
    """The smallest N with t^N + (1 - t)^N <= alpha, for a threshold 1/2 <= t < 1."""
    check_alpha(alpha)
    ours, theirs = _up_ratio(t), _up_ratio(1 - t)
    bits = 64 + _BITS + alpha.denominator.bit_length()
    limit = math.floor(alpha * (1 << bits))

    def enough(n: int) -> bool:
        return _fixed(_power(ours, n), bits) + _fixed(_power(theirs, n), bits) <= limit

    high = 1
    while not enough(high):
        high *= 2
        if high.bit_length() > _BITS // 2:
            raise DoorwardError(f"threshold 1 - {float(1 - t):.2g}; expected one that fewer than 2^128 trials can pass")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def vote_table(trials: int, blocks: Sequence[Block], alpha: Fraction, most: int | None = None) -> list[int]:
    """Votes needed for the radii 0, 1, 2, ... as far as ``trials`` votes can reach; empty when they reach nothing."""
    table: list[int] = []
    cells = [block.cells for block in blocks]
    limit = sum(c for c in cells if c is not None) if None not in cells else None
    for radius in range(10**6):
        if (most is not None and radius > most) or (limit is not None and radius > limit):
            break
        needed = votes_above_any(trials, joint_threshold(radius, blocks), alpha)
        if needed is None:
            break
        table.append(needed)
    return table


def radius_of_votes(
    votes_for_top: int, trials: int, keep: Number, domain: int = 2, alpha: Number = Fraction(1, 1000)
) -> int:
    """The largest radius that a vote count certifies; `ABSTAIN` when it does not even certify the label.

    A radius counts only when all smaller ones hold too. The votes choose the radius, so that `votes_above_any` decides;
    it asks for more than `votes_needed` only when beta is close to 1/d.
    """
    if not 0 <= votes_for_top <= trials:
        raise DoorwardError(f"{votes_for_top} votes of {trials} trials; expected 0 to {trials}")
    beta = rational(keep, "keep probability")
    check_noise(beta, domain)
    level = rational(alpha, "alpha")
    check_alpha(level)
    radius = ABSTAIN
    while True:
        needed = votes_above_any(trials, threshold(radius + 1, beta, domain), level)
        if needed is None or votes_for_top < needed:
            return radius
        radius += 1
