"""k nearest neighbours, certified without noise, sampling or a failure probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from doorward.certification.exact.parts.hamming import Bits, check_bits, hamming_distances
from doorward.certification.exact.parts.proof import Proof
from doorward.certification.smoothing.radius import Split
from doorward.certification.smoothing.votes import ABSTAIN
from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings, method

Ints = NDArray[np.int64]

_NEVER = 1 << 60  # a lead that nothing overcomes; minus that: one that is lost
_ROWS_PER_CHUNK = 1024


class NearestNeighboursSettings(Settings):
    """Settings of `nearest_neighbours`; ``balanced=False, centre=0`` is the plain majority of the k nearest."""

    k: int = Field(33, ge=1, le=100_001, description="neighbours, an odd number")
    balanced: bool = Field(
        True,
        description="judge each class by a rank in proportion to its size, ceil(k n_c / n), instead of (k + 1) / 2",
    )
    centre: int = Field(
        50,
        ge=0,
        le=100,
        description="percent of the typical distance to a class, over all training images, taken off its distance",
    )
    most: int = Field(64, ge=0, le=256, description="largest radius to look for")

    @field_validator("k")
    @classmethod
    def _odd(cls, k: int) -> int:
        if k % 2 == 0:
            raise ValueError("expected an odd number of neighbours")
        return k


@dataclass(frozen=True)
class Rule:
    """Which neighbour of a class is looked at, and what is taken off its distance.

    Args:
        k, balanced, centre: see `NearestNeighboursSettings`.
        counts: training images per class, n_c.
        sums: S_c^(i): sum over all training images of the i-th smallest distance to class c, i = 1, 2, ...
    """

    k: int
    balanced: bool
    centre: int
    counts: tuple[int, ...]
    sums: tuple[tuple[int, ...], ...]

    @property
    def images(self) -> int:
        """Number of training images, n."""
        return sum(self.counts)

    @property
    def pixel_costs(self) -> tuple[int, int]:
        """What a training pixel and a test pixel can take off a lead: units of 1 / (100 n) of a distance."""
        return 100 * self.images + self.centre * (self.images + 1), 200 * self.images

    def rank(self, size: int) -> int:
        """The rank that counts for a class of ``size`` training images, m."""
        return max(1, -(-self.k * size // self.images)) if self.balanced else (self.k + 1) // 2

    def deepest(self, most: int) -> int:
        """No certificate for up to ``most`` flipped labels looks at a larger rank."""
        return self.rank(max(self.counts) + most) + most

    def first(self, nearest: Ints) -> Ints:
        """What decides: 100 n D_c^(m) - centre S_c^(m) per class, int64 ``[M, K]``; the smallest wins."""
        columns = []
        for label, size in enumerate(self.counts):
            m = self.rank(size)
            bias = self.centre * self.sums[label][m - 1] if self.centre and m <= size else 0
            far = np.full(len(nearest), _NEVER, dtype=np.int64)
            columns.append(far if m > size else 100 * self.images * nearest[:, label, m - 1] - bias)
        return np.stack(columns, axis=1)

    def lead(self, nearest: Ints, label: int, rival: int, lost: int, won: int) -> Ints:
        """Least lead ``[M]`` of ``label`` over ``rival`` when ``lost`` labels flip to ``rival`` and ``won`` from it.

        ``label`` loses its nearest images and wins the farthest, for the test image; the other way round for the
        training images that the bias is summed over.
        """
        ours = self.rank(self.counts[label] - lost + won)
        theirs = self.rank(self.counts[rival] + lost - won)
        if ours + lost > self.counts[label] or theirs - lost < 1:
            return np.full(len(nearest), -_NEVER, dtype=np.int64)
        bias = 0
        if self.centre:
            if theirs + won > self.counts[rival]:
                return np.full(len(nearest), -_NEVER, dtype=np.int64)
            least = self.sums[label][ours - won - 1] if ours > won else 0
            bias = self.centre * (self.sums[rival][theirs + won - 1] - least)
        if theirs - lost > self.counts[rival]:
            return np.full(len(nearest), _NEVER, dtype=np.int64)
        gap = nearest[:, rival, theirs - lost - 1] - nearest[:, label, ours + lost - 1]
        return np.asarray(100 * self.images * gap - bias)


@method("certify", "nearest-neighbours", settings=NearestNeighboursSettings, given={"images", "labels"})
def nearest_neighbours(
    train: Bits, labels: Ints, test: Bits, classes: int, shape: tuple[int, int, int], s: NearestNeighboursSettings
) -> Proof:
    """Certify the label of the k nearest training images in Hamming distance.

    With D_c^(i) the i-th smallest distance to class c, the class with the smallest D_c^(m) wins, k = 2m - 1; for two
    classes that is the majority of the k nearest. Radius r holds iff D_o^(m-l) - D_c^(m+l) > 2 (r - l) for all
    l <= r and o != c: that is what l flipped labels do to the order statistics, exactly; a pixel of the test image
    then moves every distance by 1 at most, a training pixel one distance by 1. Two refinements, both inside the
    bound: ``balanced`` ranks grow with the class, so that a flipped label moves them less, and ``centre`` makes up
    for classes of different spread. Derivation: ``docs/certification-proof.md``.

    Args:
        train: uint8 ``[N, p]`` of 0 and 1; labels: int64 ``[N]`` in 0..classes-1; test: uint8 ``[M, p]``.
        shape: unused; the pixels have no order here.

    Raises:
        DoorwardError: cells that are not 0 or 1, k too large for the training images.

    Fails when: k is small, since no radius passes the number of flipped labels that use up the rank of a rival; when
    the ranked images of two classes are equally far, it abstains.
    """
    check_bits(train, "training images")
    check_bits(test, "test images")
    counts = np.bincount(labels, minlength=classes)
    limit = len(train) if s.balanced else 2 * int(counts.max()) - 1
    if s.k > limit:
        raise DoorwardError(
            f"nearest-neighbours: k = {s.k}, {len(train)} training images; expected k of at most {limit}"
        )
    if s.centre and not counts.all():
        raise DoorwardError(
            "nearest-neighbours: a class without training images; expected images of every class, or centre = 0"
        )
    plain = Rule(s.k, s.balanced, s.centre, tuple(counts.tolist()), ())
    deepest = plain.deepest(s.most + 1)
    totals = np.zeros((classes, deepest), dtype=np.int64)
    if s.centre:
        for start in range(0, len(train), _ROWS_PER_CHUNK):
            totals += _nearest(train, labels, train[start : start + _ROWS_PER_CHUNK], classes, deepest).sum(axis=0)
    sums = tuple(tuple(row[:n].tolist()) for row, n in zip(totals, counts, strict=True)) if s.centre else ()
    rule = Rule(s.k, s.balanced, s.centre, plain.counts, sums)
    nearest = np.concatenate(
        [
            _nearest(train, labels, test[start : start + _ROWS_PER_CHUNK], classes, deepest)
            for start in range(0, len(test), _ROWS_PER_CHUNK)
        ]
    )
    predicted, radii = _radii(nearest, rule, s.most)
    known = [min(deepest, int(n)) for n in counts]
    evidence = {
        "k": s.k,
        "balanced": int(s.balanced),
        "centre": s.centre,
        "most": s.most,
        "counts": list(rule.counts),
        "sums": [list(row) for row in rule.sums],
        "distances": [[row[:n].tolist() for row, n in zip(image, known, strict=True)] for image in nearest],
    }
    return Proof(predicted, radii, evidence)


def _nearest(train: Bits, labels: Ints, test: Bits, classes: int, deepest: int) -> Ints:
    """The smallest distances to each class, in rising order: int64 ``[M, K, deepest]``, 0 beyond the class."""
    distances = hamming_distances(test, train)
    nearest = np.zeros((len(test), classes, deepest), dtype=np.int64)
    for label in range(classes):
        of_class = distances[:, labels == label]
        keep = min(deepest, of_class.shape[1])
        if keep:
            part = np.partition(of_class, keep - 1, axis=1)[:, :keep]
            nearest[:, label, :keep] = np.sort(part, axis=1)
    return nearest


def _radii(nearest: Ints, rule: Rule, most: int) -> tuple[Ints, Ints]:
    """Label and radius of each image: the largest r with lead > cost (r - l) for all ways to flip l <= r labels."""
    first = rule.first(nearest)
    predicted = np.asarray(first.argmin(axis=1), dtype=np.int64)
    cost = max(rule.pixel_costs)
    radii = np.full(len(nearest), most, dtype=np.int64)
    for label in range(len(rule.counts)):
        members = np.flatnonzero(predicted == label)
        mine = nearest[members]
        for rival in range(len(rule.counts)):
            best = radii[members]
            flips = 0
            while rival != label and flips <= best.max(initial=-1):
                for lost in range(flips + 1):
                    lead = rule.lead(mine, label, rival, lost, flips - lost)
                    # lead > cost (r - l) is r <= (lead - 1) // cost + l, and says nothing about an r below l.
                    best = np.minimum(best, np.maximum((lead - 1) // cost + flips, flips - 1))
                flips += 1
            radii[members] = best
    return np.where(radii < 0, ABSTAIN, predicted), np.maximum(radii, ABSTAIN)


def withstands(evidence: dict[str, Any], image: int, split: Split) -> bool:
    """Does the label of one image survive (training pixels, training labels, test pixels) changed cells?"""
    pixels, flipped, test = split
    if flipped > evidence["most"] + 1:
        return False
    sums = tuple(map(tuple, evidence["sums"]))
    rule = Rule(evidence["k"], bool(evidence["balanced"]), evidence["centre"], tuple(evidence["counts"]), sums)
    known = evidence["distances"][image]
    nearest = np.zeros((1, len(known), rule.deepest(evidence["most"] + 1)), dtype=np.int64)
    for label, row in enumerate(known):
        nearest[0, label, : len(row)] = row
    label = int(rule.first(nearest)[0].argmin())
    per_pixel, per_test_pixel = rule.pixel_costs
    needed = pixels * per_pixel + test * per_test_pixel
    return all(
        int(rule.lead(nearest, label, rival, lost, flips - lost)[0]) > needed
        for rival in range(len(known))
        if rival != label
        for flips in range(flipped + 1)
        for lost in range(flips + 1)
    )
