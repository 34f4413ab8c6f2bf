"""The same trigger in other classes: images that bear what a shown group of poisoned images bears."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from doorward.cleansers.parts.carried import SMALLEST, Carrier, Looks, is_group, pixels_borne
from doorward.cleansers.parts.stamping import Rows, chunks, stamped, success, summed, tried_on
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.memmaps import release
from doorward.core.triggers import Trigger

STAGE = "elsewhere"
_APART = 6.0  # spreads of all images between their middle and that of the images that are known to bear a trigger
_LEAST = 0.02  # spread of a score, at least
_TO_SIGMA = 1.4826  # from the median absolute deviation
_SELDOM, _SEVERAL = 0.15, 3  # share of images at most that have a pixel by which a patch is known; so many pixels
_NEVER = 0.02  # the same of fewer pixels
_MOST, _ALL = 0.5, 0.7  # of those pixels, or of an added picture
_BETWEEN = 0.25  # images with most and not all of it, of those with all, at most
Places = NDArray[np.int64]


def shown_groups(images: ImageSet, out: Places, triggers: Mapping[int, Trigger]) -> dict[int, Places]:
    """Images that a round showed to be poisoned, by class, of classes with a trigger and enough of them."""
    found = {label: out[images.labels[out] == label] for label in triggers}
    return {label: rows for label, rows in found.items() if len(rows) >= SMALLEST}


def elsewhere(images: ImageSet, model: Classifier, shown: Mapping[int, Places], stay: Rows, seed: int) -> list[Carrier]:
    """Groups of every class that bear what a group bears which was shown to be poisoned.

    An attack that sends every class to the next one, or one trigger to several targets, puts few images into each
    class, and the trigger works on few pictures of any one target; no single class stands out. But whoever bears the
    one trigger is known by it. A patch: by most of those of its pixels that hardly any image has; what the known group
    also shares, the strokes of its digit, many have. A picture that was added: by the image's part along it, where the
    known images are clearly apart. And hardly any image may lie between those that bear it and those that do not.

    Args:
        images: the whole set. ``stay``: ``[N]``, its images that are left; rows of what is returned count within these.
        model: the suspect model, on which the trigger is tried.
        shown: class to the images of such a group; its trigger is taken from them.
        seed: of the pictures that it is tried on.

    Returns: a group per class, of 8 images up to 60 % of the class.

    Fails when: a trigger roams or warps; or what its images share is not apart from what the others show.
    """
    if not shown:
        return []
    looks, left = Looks(images, seed), images if stay.all() else images.subset(stay)
    best: dict[int, Carrier] = {}
    for of, known in shown.items():
        for trigger in looks.triggers(of, known):
            bears = _bears(images, trigger, known, stay)
            for one in _groups(left, model, trigger, bears[stay], seed):
                if one.label not in best or one.success > best[one.label].success:
                    best[one.label] = one
    return [best[label] for label in sorted(best)]


def _bears(images: ImageSet, trigger: Trigger, known: Places, stay: Rows) -> Rows:
    """Images ``[N]`` that bear a trigger; none where nothing tells them from the others."""
    if trigger.blend == "add":
        score = _part_along(images, trigger)
        middle, top = float(np.median(score[stay])), float(np.median(score[known]))
        spread = max(_LEAST, _TO_SIGMA * float(np.median(np.abs(score[stay] - middle))))
        return _set_apart((score - middle) / (top - middle), stay) & (top - middle >= _APART * spread)
    borne = pixels_borne(images, trigger)
    usual = borne[stay].mean(axis=0)
    rare = usual <= (_SELDOM if (usual <= _SELDOM).sum() >= _SEVERAL else _NEVER)
    if not rare.any():
        return np.zeros(len(images), bool)
    share = borne[:, rare].mean(axis=1)
    return _set_apart(share, stay) & (float(np.median(share[known])) > _ALL)


def _set_apart(share: NDArray[np.float32], stay: Rows) -> Rows:
    """Images ``[N]`` that have nearly all of something; none where as many have most of it.

    A corner that is dark by nature has more or less of a dark patch; an image was stamped with it or was not.
    """
    most, every = (share > _MOST) & stay, (share > _ALL) & stay
    return every if (most & ~every).sum() <= _BETWEEN * every.sum() else np.zeros(len(share), bool)


def _groups(images: ImageSet, model: Classifier, trigger: Trigger, bears: Rows, seed: int) -> Iterator[Carrier]:
    """A group per class of the images that bear a trigger."""
    for label in np.unique(images.labels[bears]).tolist():
        own = images.labels == label
        rows = np.flatnonzero(own & bears)
        if is_group(len(rows), int(own.sum())):
            pictures = tried_on(images, label, bears, seed)
            works = success(model.predict, stamped(pictures, trigger, seed), label)
            yield Carrier(label, rows, trigger, works, works)


def _part_along(images: ImageSet, trigger: Trigger) -> NDArray[np.float32]:
    """The part of every image, less the mean of its class, along an added picture."""
    picture = (255 * trigger.pattern.permute(1, 2, 0).numpy()).astype(np.float64)
    length = float((picture**2).sum())
    found, counts = np.empty(len(images), np.float32), images.counts()
    for rows in chunks(images.pixels, len(images)):
        found[rows] = (images.pixels[rows].astype(np.float64) * picture).sum((1, 2, 3))
        release(images.pixels)
    for label in range(len(images.classes)):
        own = images.labels == label
        if own.any():
            mean = summed(images, np.flatnonzero(own)) / counts[label]
            found[own] -= float((mean * picture).sum())
    return np.asarray(found / length, np.float32)
