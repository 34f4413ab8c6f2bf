"""What an attacker can take off a score of the method `mean-distance` at most, in integers.

The inequalities are derived in ``docs/certification-proof.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from doorward.certification.exact.parts.hamming import Bits
from doorward.certification.exact.parts.mean_rule import EXACT, Ints, Rule, product

_SHARE_BITS = 10  # resolution of the shares of `_shares`
_MANY_IMAGES = 1000  # beyond these a label's harm is computed for 1, 2, 4, 8, ... flips only


def training_pixel_harm(rule: Rule, flips: int) -> int:
    """What one flipped training pixel can take off a score, after ``flips`` flipped labels.

    It moves the blurred weights by (n + |sum of signs|) kernel in all, each worth at most n, and one U_j by 1, worth
    a clipped weight.
    """
    n = rule.images
    imbalance = min(n, abs(int(rule.signs.sum())) + 2 * flips)
    return n * rule.kernel * (n + imbalance) + rule.cap


@dataclass(frozen=True, eq=False)
class Harm:
    """Radii ``[M]``, and upper bounds on what can be taken off a score.

    ``labels`` ``[M, L]``: by l flipped labels; ``pixels`` ``[M, L, L]``: by t flipped pixels of the test image after l.
    """

    labels: Ints
    pixels: Ints
    radii: Ints


def bound_harm(rule: Rule, test: Bits, scores: Ints, most: int) -> Harm:
    """Bounds and radii for test images that ``rule`` gives the label 0, with ``scores`` above 0."""
    down, up = reaches(rule, most + 1)
    limit = most + 1
    first = _pixel_harm(rule, test, down[0], up[0], limit)
    limit = min(limit, int((first < scores[:, None]).sum(axis=1).max()))  # no radius reaches this
    labels = np.zeros((len(test), limit + 1), dtype=np.int64)
    pixels = np.zeros((len(test), limit + 1, limit + 1), dtype=np.int64)
    level = 0
    for flips in range(limit + 1):
        if flips > level:  # the reach of more flips than needed is a bound too
            level = flips if rule.images <= _MANY_IMAGES else min(2 * flips - 1 if level else 1, most + 1)
            sums = _label_harm(rule, test, down[level], up[level], min(level, limit))
        labels[:, flips] = sums[:, flips] if flips else 0
        wide = limit - flips
        pixels[:, flips, : wide + 1] = _pixel_harm(rule, test, down[flips], up[flips], wide)
    training = np.array([training_pixel_harm(rule, flips) for flips in range(limit + 1)])
    radii = np.zeros(len(test), dtype=np.int64)
    holds = np.ones(len(test), dtype=bool)
    for radius in range(1, min(limit, most) + 1):
        for flips in range(radius + 1):
            test_flips = np.arange(radius - flips + 1)
            rest = (radius - flips - test_flips) * training[flips]
            worst = (pixels[:, flips, test_flips] + rest).max(axis=1)
            holds &= scores > labels[:, flips] + worst
        radii[holds] = radius
    return Harm(labels, pixels, radii)


def _largest(values: Ints, keep: int) -> Ints:
    """The ``keep`` largest of each row, largest first."""
    if keep == 0:
        return values[:, :0]
    start = values.shape[1] - keep
    return np.sort(np.partition(values, start, axis=1)[:, start:], axis=1)[:, ::-1]


def reaches(rule: Rule, most: int) -> tuple[Ints, Ints]:
    """How far 0, 1, ..., ``most`` flipped labels can move each weight down and up: two int64 ``[most + 1, p]``.

    Flipping label i moves V_j by -2 s_i centred_ij.
    """
    moves = 2 * rule.signs[:, None] * rule.centred
    found = []
    for part in (np.maximum(moves, 0), np.maximum(-moves, 0)):
        keep = min(most, len(part))
        total = np.zeros((most + 1, part.shape[1]), dtype=np.int64)
        total[1 : keep + 1] = np.cumsum(_largest(part.T, keep), axis=1).T
        total[keep + 1 :] = total[keep]
        found.append(total)
    return found[0], found[1]


def _pixel_harm(rule: Rule, test: Bits, down: Ints, up: Ints, most: int) -> Ints:
    """What 0..``most`` flipped pixels of the test image take off at most, with weights moved by ``down`` and ``up``."""
    lit = rule.images * np.clip(rule.weights + up, 0, rule.cap)
    dark = rule.images * np.clip(down - rule.weights, 0, rule.cap)
    harm = np.where(test == 1, lit, dark)
    total = np.zeros((len(test), most + 1), dtype=np.int64)
    keep = min(most, harm.shape[1])
    total[:, 1 : keep + 1] = np.cumsum(_largest(harm, keep), axis=1)
    total[:, keep + 1 :] = total[:, keep, None]
    return total


def _shares(weights: Ints, cap: int, down: Ints, up: Ints, bits: int) -> tuple[Ints, Ints]:
    """Shares, in units of 2^-bits, of a pull down and of a push up that a clipped weight passes on.

    For every pull H <= ``down`` and push B <= ``up``: clip(V + B - H) - clip(V) >= share_up B - share_down H. Above
    the cap the first V - cap of a pull is lost, and the chord of that convex loss bounds it; in between a push may
    be cut off at the cap, and the chord of that concave gain bounds it.
    """
    one = 1 << bits
    slack = np.clip(weights - cap, 0, down)
    share_down = np.where(down > 0, -((slack - down) * one // np.maximum(down, 1)), 0)
    share_down = np.where(weights <= -cap, 0, share_down)
    room = np.clip(cap - weights, 0, up)
    share_up = np.where((weights < cap) & (weights > -cap) & (up > 0), room * one // np.maximum(up, 1), 0)
    return share_down, share_up


def share_bits(rule: Rule) -> int:
    """The finest resolution of the shares at which float64 products stay exact."""
    n, cells = rule.centred.shape
    largest = 2 * cells * n * rule.kernel * n
    return min(_SHARE_BITS, (EXACT // largest).bit_length() - 2)


def label_harms(rule: Rule, test: Bits, down: Ints, up: Ints) -> Ints:
    """What each flipped label takes off each score at most, while weights stay within ``down`` and ``up``: ``[M, N]``.

    In units of 2^-bits. A lit pixel (x_j = 1) has n - U_j to lose per unit of weight pulled down, a dark one U_j per
    unit pushed up.
    """
    bits = share_bits(rule)
    moves = 2 * rule.signs[:, None] * rule.centred
    pulls, pushes = np.maximum(moves, 0), np.maximum(-moves, 0)
    harm_lit, gain_lit = _shares(rule.weights, rule.cap, down, up, bits)
    harm_dark, gain_dark = _shares(-rule.weights, rule.cap, up, down, bits)
    lit = (pulls * harm_lit - pushes * gain_lit) * (rule.images - rule.on)
    dark = (pushes * harm_dark - pulls * gain_dark) * rule.on
    return product(test, (lit - dark).T) + dark.sum(axis=1)


def _label_harm(rule: Rule, test: Bits, down: Ints, up: Ints, most: int) -> Ints:
    """What 0..``most`` flipped labels take off at most, ``[M, most + 1]``: the sum of the largest single harms."""
    single = label_harms(rule, test, down, up)
    keep = min(most, single.shape[1])
    total = np.zeros((len(test), most + 1), dtype=np.int64)
    total[:, 1 : keep + 1] = np.cumsum(np.maximum(_largest(single, keep), 0), axis=1)
    total[:, keep + 1 :] = total[:, keep, None]
    return -((-total) >> share_bits(rule))
