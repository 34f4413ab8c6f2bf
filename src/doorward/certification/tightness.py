"""How far a deterministic certificate is from the truth: attacks that succeed, found by greedy search.

Certified radius <= true radius < cells changed by an attack that succeeds. Every attack is evaluated exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.certification.certificate import BESIDE, Certificate
from doorward.certification.exact.methods.mean_distance import MeanDistanceSettings
from doorward.certification.exact.methods.nearest_neighbours import NearestNeighboursSettings, Rule
from doorward.certification.exact.parts.hamming import Bits, hamming_distances
from doorward.certification.exact.parts.mean_bounds import label_harms, reaches
from doorward.certification.exact.parts.mean_rule import Rule as MeanRule
from doorward.certification.exact.parts.mean_rule import fit
from doorward.certification.smoothing.task import cells_of
from doorward.certification.smoothing.votes import ABSTAIN
from doorward.core import methods
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet

Ints = NDArray[np.int64]

_FAR = 1 << 40
_BIAS_IMAGES = 400  # more training images than these: label flips are not searched where they move a bias
_SOFTNESS = 3.0  # neighbours this far from the ranked one still count, when a pixel is chosen


@dataclass(frozen=True, eq=False)
class AttackSearch:
    """The smallest attacks found on certified labels.

    Args:
        certified: certified radii, int64 ``[M]``; ABSTAIN where there was no label to attack.
        cells: cells that the smallest attack found changes, int64 ``[M]``; ABSTAIN where none was found.
        labels: what it changes in training, per image: (training image, new label) pairs.
        pixels: what it changes in the test image: indices of cells.
    """

    certified: Ints
    cells: Ints
    labels: list[list[tuple[int, int]]]
    pixels: list[list[int]]

    @property
    def upper(self) -> Ints:
        """No radius above this can be certified, int64 ``[M]``; ABSTAIN where no attack was found."""
        return np.where(self.cells == ABSTAIN, ABSTAIN, self.cells - 1)

    def gaps(self) -> dict[int, int]:
        """Images by the distance between the certified radius and what the attack leaves open; 0 is the exact truth."""
        found = (self.cells != ABSTAIN) & (self.certified != ABSTAIN)
        values, counts = np.unique((self.upper - self.certified)[found], return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))


def attack_search(train: ImageSet, test: ImageSet, certificate: Certificate, budget: int = 40) -> AttackSearch:
    """Search attacks of up to ``budget`` cells on every label of a deterministic certificate.

    For each number of flipped labels, the labels that matter most are flipped, then pixels of the test image.

    Raises:
        DoorwardError: other data than the certificate's, or a certificate of flip smoothing.

    Fails when: the best attack flips labels that help each other; the search then finds a larger one.
    """
    searches: dict[str, _Search] = {"nearest-neighbours": _neighbours, "mean-distance": _mean_distance}
    if certificate.method not in searches:
        raise DoorwardError(f"attack search: method {certificate.method}; expected one of {', '.join(searches)}")
    if (train.hash, test.hash) != (certificate.train_sha256, certificate.test_sha256):
        raise DoorwardError("attack search: other images than the certificate is about; expected the same two sets")
    values = {k: v for k, v in certificate.settings.items() if k not in BESIDE}
    binarise = int(certificate.settings["binarise"])
    settings = methods.get("certify", certificate.method).configure(values)
    best = _Best(certificate.radii, budget)
    searches[certificate.method](
        cells_of(train, binarise), train.labels, cells_of(test, binarise), certificate, settings, best
    )
    return AttackSearch(certificate.radii, np.where(best.cells > budget, ABSTAIN, best.cells), best.labels, best.pixels)


class _Best:
    """The smallest attack so far on each image."""

    def __init__(self, radii: Ints, budget: int) -> None:
        self.cells = np.full(len(radii), budget + 1, dtype=np.int64)
        self.labels: list[list[tuple[int, int]]] = [[] for _ in radii]
        self.pixels: list[list[int]] = [[] for _ in radii]

    def offer(self, image: int, flipped: Ints, new: Ints, pixels: Ints) -> None:
        """Keep an attack that succeeds, when it is smaller: labels of ``flipped`` become ``new``, ``pixels`` change."""
        if len(flipped) + len(pixels) < self.cells[image]:
            self.cells[image] = len(flipped) + len(pixels)
            self.labels[image] = list(zip(flipped.tolist(), new.tolist(), strict=True))
            self.pixels[image] = pixels.tolist()


_Search = Callable[[Bits, Ints, Bits, Certificate, Any, _Best], None]


def _mean_distance(
    train: Bits, labels: Ints, test: Bits, certificate: Certificate, s: MeanDistanceSettings, best: _Best
) -> None:
    shape = certificate.settings["shape"]
    fitted = fit(train, labels, (shape[0], shape[1], shape[2]), s.blur, s.clip)
    for label, rule in ((0, fitted), (1, fitted.mirrored())):
        members = np.flatnonzero(certificate.predicted == label)
        if len(members) == 0:
            continue
        mine = test[members].astype(np.int64)
        budget = int(best.cells[members].max()) - 1
        down, up = reaches(rule, budget)
        for flips in range(min(budget, rule.images) + 1):
            harms = label_harms(rule, test[members], down[flips], up[flips])
            chosen = np.argsort(-harms, axis=1, kind="stable")[:, :flips]
            order, steps = _pixels_after(rule, mine, chosen, budget)
            for place in np.flatnonzero(steps + flips < best.cells[members]):
                flipped = chosen[place]
                best.offer(int(members[place]), flipped, 1 - labels[flipped], order[place, : steps[place]])


def _pixels_after(rule: MeanRule, test: Ints, chosen: Ints, budget: int) -> tuple[Ints, Ints]:
    """The best pixels to flip once the labels ``chosen`` ``[M, l]`` are, in order, and how many of them it takes."""
    moves = (2 * rule.signs[:, None] * rule.centred).astype(np.float64)
    flipped = np.zeros((len(test), rule.images))
    np.put_along_axis(flipped, chosen, 1.0, axis=1)
    moved = rule.weights - (flipped @ moves).astype(np.int64)
    weights = np.clip(moved, -rule.cap, rule.cap)
    scores = (weights * (rule.images * test - rule.on)).sum(axis=1)
    harm = rule.images * weights * (2 * test - 1)
    order = np.argsort(-harm, axis=1, kind="stable")[:, :budget]
    gone = scores[:, None] - np.cumsum(np.take_along_axis(harm, order, axis=1), axis=1) <= 0
    steps = np.where(scores <= 0, 0, np.where(gone.any(axis=1), gone.argmax(axis=1) + 1, _FAR))
    return order, steps


def _neighbours(
    train: Bits, labels: Ints, test: Bits, certificate: Certificate, s: NearestNeighboursSettings, best: _Best
) -> None:
    evidence = certificate.evidence
    rule = Rule(s.k, s.balanced, s.centre, tuple(evidence["counts"]), tuple(map(tuple, evidence["sums"])))
    distances = hamming_distances(test, train).astype(np.int64)
    between = hamming_distances(train, train) if s.centre and len(train) <= _BIAS_IMAGES else None
    own = np.stack([_bias(rule, c, n) for c, n in enumerate(rule.counts)])
    first = np.stack([_ranked(distances, labels == c, rule.rank(n)) for c, n in enumerate(rule.counts)], axis=1)
    leads = 100 * len(train) * first - own
    leads[np.arange(len(test)), certificate.predicted] = np.iinfo(np.int64).max
    rivals = leads.argmin(axis=1)
    for label in range(len(rule.counts)):
        for rival in range(len(rule.counts)):
            members = np.flatnonzero((certificate.predicted == label) & (rivals == rival))
            if label == rival or len(members) == 0:
                continue
            most = 0 if s.centre and between is None else min(int(best.cells.max()) - 1, rule.counts[label] - 1)
            nearest = np.where(labels == label, distances[members], _FAR).argsort(axis=1, kind="stable")
            for flips in range(most + 1):
                attack = _Flipped(rule, train, test[members], labels, label, rival, nearest[:, :flips], between)
                attack.search(distances[members], members, best)


def _ranked(distances: Ints, of_class: NDArray[np.bool_], rank: int) -> Ints:
    """The rank-th smallest distance to a class ``[M]``; ``of_class`` is ``[N]`` or ``[M, N]``."""
    inside = np.where(of_class, distances, np.int64(_FAR))  # distances may be int32
    return np.asarray(np.partition(inside, rank - 1, axis=1)[:, rank - 1], dtype=np.int64)


def _bias(rule: Rule, label: int, size: int) -> int:
    return rule.centre * rule.sums[label][rule.rank(size) - 1] if rule.centre else 0


class _Flipped:
    """Training labels after an attack on each of B test images, and the greedy search over their pixels."""

    def __init__(
        self, rule: Rule, train: Bits, test: Bits, labels: Ints, label: int, rival: int, flipped: Ints, between: Any
    ) -> None:
        self.flipped, self.test = flipped, test
        self.new = np.full(flipped.shape[1], rival, dtype=np.int64)
        self.signs = 2 * train.astype(np.float32) - 1
        now = np.repeat(labels[None], len(test), axis=0)
        np.put_along_axis(now, flipped, rival, axis=1)
        self.ours, self.theirs = now == label, now == rival
        self.ranks = (
            rule.rank(rule.counts[label] - flipped.shape[1]),
            rule.rank(rule.counts[rival] + flipped.shape[1]),
        )
        self.scale = 100 * rule.images
        self.bias = np.zeros(len(test), dtype=np.int64)
        if rule.centre and flipped.shape[1] == 0:
            self.bias += _bias(rule, rival, rule.counts[rival]) - _bias(rule, label, rule.counts[label])
        elif rule.centre:
            for place in range(len(test)):
                theirs = _ranked(between, self.theirs[place], self.ranks[1]).sum()
                self.bias[place] = rule.centre * (theirs - _ranked(between, self.ours[place], self.ranks[0]).sum())

    def search(self, distances: Ints, members: Ints, best: _Best) -> None:
        """Flip pixels one by one, each time the one that moves the images near the ranks most."""
        lit = 2 * self.test.astype(np.float32) - 1
        free = np.ones(self.test.shape, dtype=np.float32)
        chosen = np.zeros((len(self.test), 0), dtype=np.int64)
        distances = distances.copy()
        rows = np.arange(len(self.test))
        while True:
            first = _ranked(distances, self.ours, self.ranks[0])
            second = _ranked(distances, self.theirs, self.ranks[1])
            done = self.scale * (second - first) - self.bias <= 0
            for place in np.flatnonzero(done):
                best.offer(int(members[place]), self.flipped[place], self.new, chosen[place])
            going = ~done & (self.flipped.shape[1] + chosen.shape[1] + 1 < best.cells[members])
            if not going.any() or chosen.shape[1] == self.test.shape[1]:
                return
            weights = self._weights(distances, self.ours, first) - self._weights(distances, self.theirs, second)
            gain = np.where(free > 0, lit * (weights @ self.signs), -np.inf)
            pixel = gain.argmax(axis=1)
            distances += (lit[rows, pixel, None] * self.signs[:, pixel].T).astype(np.int64)
            free[rows, pixel] = 0
            chosen = np.concatenate([chosen, pixel[:, None]], axis=1)
            keep = np.flatnonzero(going)
            if len(keep) < len(rows):
                self._keep(keep)
                distances, chosen, members = distances[keep], chosen[keep], members[keep]
                lit, free = lit[keep], free[keep]
                rows = np.arange(len(keep))

    def _keep(self, keep: Ints) -> None:
        self.test, self.flipped, self.bias = self.test[keep], self.flipped[keep], self.bias[keep]
        self.ours, self.theirs = self.ours[keep], self.theirs[keep]

    @staticmethod
    def _weights(distances: Ints, of_class: NDArray[np.bool_], ranked: Ints) -> NDArray[np.float32]:
        """How much each training image matters, ``[B, N]``: its closeness to the ranked distance; sums to 1."""
        near = np.where(of_class, np.exp(-np.abs(distances - ranked[:, None]) / _SOFTNESS), 0.0)
        return np.asarray(near / near.sum(axis=1, keepdims=True), dtype=np.float32)
