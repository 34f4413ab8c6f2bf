"""Trigger transfer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.cleansers.parts.carried import (
    FIRST,
    NOTHING,
    Carrier,
    Looks,
    bearing,
    followed,
    is_another,
    is_group,
    members,
    tried,
)
from doorward.cleansers.parts.clusters import CLUSTERS, divided, whitened
from doorward.cleansers.suspicion import Group, Suspicion, list_classes, members_by_class
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.methods import Settings, method
from doorward.core.triggers import Trigger

Floats = NDArray[np.float32]
Places = NDArray[np.int64]
_SPREAD = 0.7  # of that between classes without poison, at least: most of them have no success at all
_SMALL = 0.1  # of an image at most: a patch by which hardly any class without poison moves others
# Of 818 classes without poison (photographs, seeds 111 to 114; digits, 601 to 604), one in ten of the photographs' and
# one in 100 of the digits' came to more than 0, hardly any to more than 1; none had a small patch that did anything.
_KNOWN = {"patch": 0.005, "else": 0.05}
_FALLS = 0.75
_AS_GOOD = 0.9  # of the strength that a class's best way leads to: groups that say who belongs there
_NEARLY = 0.7  # less weight than that, at most: half of its odds, or twice the change of a picture


class TransferSettings(Settings):
    """Settings of trigger transfer."""

    threshold: float = Field(
        0.5, gt=0, le=1, description="success on images of other classes from which a group is flagged"
    )
    tries: int = Field(2, ge=1, description="groups of a class that are followed, most promising first")


@method(
    "cleanse",
    "transfer",
    settings=TransferSettings,
    given={"features", "labels", "pixels", "classifier", "seed"},
    kind="triggers",
)
def transfer(
    features: Floats,
    labels: Places,
    pixels: NDArray[np.uint8],
    classifier: Classifier,
    s: TransferSettings,
    *,
    seed: int,
) -> Suspicion:
    """Flag groups of a class that carry a trigger: what they have in common sends other images to the class.

    No search and no training. Every class is clustered in feature space, twice. Of a cluster two triggers are taken:
    its mean less that of the rest of its class, to be added; and the pixels on which three quarters of it agree, as
    others do not, to be laid over. Each is tried on images of other classes. The most promising clusters are followed:
    images of the class that look to the classifier as pictures under the trigger do are the next group, its trigger
    the next trigger. A poisoned group leads to itself. What a natural kind has in common, such as trucks before white,
    moves few images at its own strength, and it does not lead to itself.

    Ours. The step from a cluster to its common pattern is that of spectral methods turned to pixels; the test is the
    attacker's own: does it work.

    Args:
        features: penultimate features ``[N, t]``.
        labels: training labels ``[N]``.
        pixels: uint8 ``[N, H, W, C]``.
        classifier: trained on them.
        seed: of the clusters and the pictures that are tried.

    Returns: an image's score is the success of its class's best trigger, the geometric mean of one and two times its
        strength, and 0 outside of the groups that hold; a row per class, its statistic the same success. Tested is the
        log odds of that, less the logarithm of how much the trigger changes a picture; alone is how often a class
        without poison came to as much in development.

    Fails when: the trigger moves from image to image or warps them strongly; poisoned images are no part of any
        cluster's majority; fewer than 8 are poisoned; their labels are true (clean-label attacks).
    """
    images = ImageSet(pixels, labels, classifier.classes, "images")
    looks = Looks(images, seed)
    cluster = [divided(features, labels, len(images.classes), seed), whitened(features, labels, seed)]
    score, flag = np.zeros(len(labels), np.float32), np.zeros(len(labels), bool)
    groups, small, triggers = list[Group](), list[int](), dict[int, Trigger]()
    tested, alone = np.full(len(images.classes), np.nan), np.ones(len(images.classes))
    for label, rows in members_by_class(labels):
        if not is_group(len(rows) // CLUSTERS, len(rows)) or len(rows) == len(labels):
            small.append(label)
            continue
        tries = [tried(images, classifier, looks, label, some, seed, FIRST) for some in _groups(rows, cluster)]
        ways = [followed(images, classifier, features, looks, one, seed) for one in _promising(tries, s.tries)]
        best, good = _good(ways)
        strength = 0.0 if best is None else best.strength
        tested[label], alone[label] = _weighed(best)
        inside = members(good, len(labels))
        if strength >= s.threshold:
            inside = _bearers(images, label, good[0], inside)
            flag |= inside
            triggers[label] = good[0].working
        score[inside] = strength
        flagged = int((flag & (labels == label)).sum())
        groups.append(Group(label, 0, len(rows), strength, s.threshold, flagged))
    told = [f"classes {list_classes(small)}: too few images for groups, not inspected"] if small else []
    return Suspicion(score, flag, tuple(groups), tuple(told), tested, _SPREAD, alone, triggers)


def _weighed(best: Carrier | None) -> tuple[float, float]:
    """The number of a class to be tested, and the chance of it in a class without poison."""
    if best is None:
        return NOTHING, 1.0
    patch = best.trigger.blend == "alpha" and float(best.trigger.alpha.mean()) <= _SMALL
    known = _KNOWN["patch" if patch else "else"] * float(np.exp(-best.weight / _FALLS))
    return best.weight, min(1.0, known)


def _bearers(images: ImageSet, label: int, best: Carrier, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The images ``[N]`` of a class that bear a patch, where most of its group do; else the group."""
    if best.trigger.blend != "alpha":
        return inside
    bears = bearing(images, label, best.trigger)
    return bears if (bears & inside).sum() >= inside.sum() / 2 else inside


def _groups(rows: Places, clusters: Sequence[NDArray[np.int64]]) -> list[Places]:
    """Each cluster of a class that is neither tiny nor the class, nor nearly another one."""
    found = list[Places]()
    for cluster in clusters:
        for number in np.unique(cluster[rows]):
            some = rows[cluster[rows] == number]
            if is_another(some, found, len(rows)):
                found.append(some)
    return found


def _promising(tries: Sequence[Carrier], most: int) -> list[Carrier]:
    return sorted(tries, key=lambda one: -one.weight)[:most]


def _good(ways: Sequence[Sequence[Carrier]]) -> tuple[Carrier | None, list[Carrier]]:
    """Where the way leads that says most, and all groups about as good, the one that says most first."""
    best = max((way[-1] for way in ways if way), key=lambda one: one.weight, default=None)
    if best is None:
        return None, []
    strong, heavy = _AS_GOOD * best.strength, best.weight - _NEARLY
    good = [one for way in ways for one in way if one.strength >= strong and one.weight >= heavy]
    return best, sorted(good, key=lambda one: -one.weight)
