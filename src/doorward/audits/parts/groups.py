"""Groups of images that carry a trigger: what such a group has in common sends other images to its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.audits.parts.grow import FEWEST, as_stamped
from doorward.audits.parts.transfer import stamped, success, summed, tried_on
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.triggers import Stamp, Trigger

STAGE = "groups"
_LARGEST = 0.6  # of a class: a larger group is the class
_SAME = 0.9  # of two groups' images in common: they are one
_STAMPED = 400  # pictures under a trigger that images are compared with
_FIRST, _HOPE = 64, 0.03  # pictures that a trigger is first tried on, and the success that it needs to be tried on all
_LOOKED_AT = 256  # images of a group, and of others, whose single pixels are compared
_NEAR = 24  # of 255: values that are alike
_AGREE = 0.75  # of a group's images: fewer do not agree on a pixel
_BEARS, _NATURAL = 0.5, 0.999  # share of a patch's pixels that an image bears; quantile of other classes' images
_RATHER = 0.8  # of the added trigger's success: a patch is taken from there
_AS_GOOD = 0.5  # of a class's best success, from which other groups count too
Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Carrier:
    """A group of one class and the trigger taken from it.

    Args:
        label: the class. ``rows``: numbers of its images ``[n]``.
        trigger: what they have in common. ``success``: of that on the suspect model, 0 to 1.
    """

    label: int
    rows: Places
    trigger: Trigger
    success: float


def carriers(
    images: ImageSet,
    model: Classifier,
    features: NDArray[np.float32],
    marks: Sequence[NDArray[np.bool_]],
    triggers: Mapping[int, Sequence[Stamp]],
    seed: int,
) -> list[Carrier]:
    """Take a trigger from every group that is there, without any search, and try it on the suspect model.

    Two triggers of a group: the mean of its images less that of the rest of their class, added; and the pixels that
    three quarters of it agree on, as not half as many of the rest of its class and of other classes do, laid over. The
    better counts. A clean kind of its own, such as trucks before white, differs from its class too, but what it has in
    common seldom sends other classes there.

    Args:
        features: ``[N, t]``, the suspect model's.
        marks: images ``[N]`` that something flags; the part within each class is a group.
        triggers: class to triggers; images that look to the model as pictures under one do are a group too.
        seed: of the pictures that are tried.

    Returns: groups of `FEWEST` images up to 60 % of a class, each once, with their success.

    Fails when: no group is mostly poisoned, the trigger moves from image to image or warps them.
    """
    nobody, every = np.zeros(len(images), bool), list(marks)
    for number in range(max((len(some) for some in triggers.values()), default=0)):
        one = {label: some[number : number + 1] for label, some in triggers.items()}
        every.append(as_stamped(images, model, features, nobody, one, seed, _STAMPED))
    looks = _Looks(images, seed)
    return [_tried(images, model, looks, label, rows, seed) for label, rows in _groups(images.labels, every)]


def best_of(found: Sequence[Carrier]) -> dict[int, Carrier]:
    """The group of every class whose trigger works best."""
    best: dict[int, Carrier] = {}
    for one in found:
        if one.label not in best or one.success > best[one.label].success:
            best[one.label] = one
    return best


def carrying(found: Sequence[Carrier], label: int, count: int) -> NDArray[np.bool_]:
    """Images ``[count]`` of a class in half of the groups whose trigger works at least half as well as the best."""
    best = max((one.success for one in found if one.label == label), default=0.0)
    good = [one for one in found if one.label == label and one.success >= _AS_GOOD * best > 0]
    votes = np.zeros(count)
    for one in good:
        votes[one.rows] += 1
    return np.asarray(votes >= len(good) / 2, bool) if good else np.zeros(count, bool)


class _Looks:
    """What classes look like: the sum of each one's images, made once, and some images to compare pixels with."""

    def __init__(self, images: ImageSet, seed: int) -> None:
        self.images, self.counts = images, images.counts()
        self.rng = np.random.default_rng(seed)
        self.sums = np.stack([summed(images, np.flatnonzero(images.labels == k)) for k in range(len(images.classes))])

    def _some(self, rows: Places) -> Pixels:
        return self.images.pixels[self.rng.permutation(rows)[:_LOOKED_AT]]

    def triggers(self, label: int, rows: Places) -> list[Trigger]:
        """What a group adds to its class, and what it lays over other images where it agrees on something."""
        sums, labels = summed(self.images, rows), self.images.labels
        made = [_trigger(sums / len(rows) - (self.sums[label] - sums) / (self.counts[label] - len(rows)), None)]
        own = self._some(rows)
        middle = np.median(own, axis=0)
        rest = self._some(np.setdiff1d(np.flatnonzero(labels == label), rows))
        others = self._some(np.flatnonzero(labels != label))
        agree = _near(own, middle).mean(axis=0)
        elsewhere = np.maximum(_near(rest, middle).mean(axis=0), _near(others, middle).mean(axis=0))
        steady = (agree >= _AGREE) & (elsewhere <= agree / 2)
        if steady.any():
            made.append(_trigger(middle, steady))
        return made


def bearing(images: ImageSet, label: int, trigger: Trigger) -> NDArray[np.bool_]:
    """Images ``[N]`` of a class that bear a patch: most of its pixels, as hardly any image of other classes does."""
    where = trigger.alpha[0].numpy() > 0
    pattern = (trigger.pattern.permute(1, 2, 0).numpy() * 255)[where]
    share = np.empty(len(images), np.float32)
    for start in range(0, len(images), 1024):
        rows = slice(start, start + 1024)
        share[rows] = _near(images.pixels[rows][:, where], pattern).mean(axis=1)
    natural = float(np.quantile(share[images.labels != label], _NATURAL))
    return np.asarray((images.labels == label) & (share > max(_BEARS, natural)), bool)


def _near(pixels: Pixels, value: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where all channels lie near a value; the last dimension is the channels."""
    return np.asarray((np.abs(pixels.astype(np.float32) - value.astype(np.float32)) <= _NEAR).all(axis=-1), bool)


def _trigger(picture: NDArray[np.floating], where: NDArray[np.bool_] | None) -> Trigger:
    pattern = torch.from_numpy(picture / 255).permute(2, 0, 1).float().contiguous()
    if where is None:
        return Trigger(pattern, torch.ones_like(pattern[:1]), blend="add")
    return Trigger(pattern.clamp(0, 1), torch.from_numpy(where[None].astype(np.float32)))


def _groups(labels: NDArray[np.int64], marks: Sequence[NDArray[np.bool_]]) -> list[tuple[int, Places]]:
    """Class and images of every group that is neither tiny nor the class, nor nearly another one."""
    found: list[tuple[int, Places]] = []
    for marked in marks:
        for label in np.unique(labels[marked]).tolist():
            rows = np.flatnonzero(marked & (labels == label))
            known = (other for of, other in found if of == label)
            if FEWEST <= len(rows) <= _LARGEST * (labels == label).sum() and not any(_alike(rows, o) for o in known):
                found.append((label, rows))
    return found


def _alike(one: Places, other: Places) -> bool:
    return bool(len(np.intersect1d(one, other)) >= _SAME * len(np.union1d(one, other)))


def _tried(images: ImageSet, model: Classifier, looks: _Looks, label: int, rows: Places, seed: int) -> Carrier:
    """The better of a group's triggers; of two about as good the patch, which can be seen on an image."""
    out = np.zeros(len(images), bool)
    out[rows] = True
    pictures = tried_on(images, label, out, seed)
    found = list[Carrier]()
    for trigger in looks.triggers(label, rows):
        works = success(model.predict, stamped(pictures[:_FIRST], trigger, seed), label)
        if works >= _HOPE:
            works = success(model.predict, stamped(pictures, trigger, seed), label)
        found.append(Carrier(label, rows, trigger, works))
    return found[-1] if found[-1].success >= _RATHER * found[0].success else found[0]
