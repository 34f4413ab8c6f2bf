"""What a group of images has in common, taken from it as a trigger and tried on others. No search, no training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.cleansers.parts.likeness import as_stamped
from doorward.cleansers.parts.stamping import Pixels, Rows, chunks, stamped, success, summed, tried_on
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.memmaps import release
from doorward.core.triggers import Trigger

_SAME = 0.9  # of two groups' images in common: they are one
LARGEST = 0.6  # of a class: a larger group is the class
SMALLEST = 8  # images: the mean of fewer is their noise
FIRST = 32  # pictures that a group's triggers are first tried on
ALL = 300  # the same of a group that counts
_FOLLOWED = 0.2  # success of the doubled trigger from which a group is followed
_STEPS = 3
_ITSELF = 0.5  # success at its own strength at which a group needs not lead anywhere
_ENOUGH = 0.25  # success at which a trigger needs no doubling
_LOOKED_AT = 256  # images of a group, and of others, whose single pixels are compared
_COVERS = 0.5  # of an image at most: what covers more is another image, as a copy of one in the set
_NEAR = 24  # of 255: values that are alike
_AGREE = 0.75  # of a group's images: fewer do not agree on a pixel
_SOFT = 0.05  # added to both sides of a strength before the logarithm
NOTHING = float(np.log(_SOFT / (1 + _SOFT)))  # the weight of no success at all
_USUAL = 0.1  # change of a picture by what a clean group has in common
_CHANGED = 64  # pictures on which the change is measured
_BEARS, _NATURAL = 0.5, 0.999  # share of a patch's pixels that an image bears; quantile of other classes' images
_RATHER = 0.8  # of the added trigger's success: a patch is taken from there
_DOSE = 2.0  # times the picture that a group adds: it is a part of the trigger where part of the group is clean
Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Carrier:
    """A group of one class and the trigger taken from it.

    Args:
        label: the class. ``rows``: numbers of its images ``[n]``.
        trigger: what they have in common. ``success``: of that on the suspect model, 0 to 1.
        doubled: success of twice that, where it is a picture to be added; of a patch, its success.
        size: mean change of a picture under the trigger, 0 to 1.
    """

    label: int
    rows: Places
    trigger: Trigger
    success: float
    doubled: float
    size: float = 0.0

    @property
    def strength(self) -> float:
        """Geometric mean of both: what clean groups have in common turns images when it is doubled, if ever."""
        return float(np.sqrt(self.success * self.doubled))

    @property
    def weight(self) -> float:
        """Log odds of its strength, less the logarithm of how much it changes a picture: a faint trigger says more."""
        odds = np.log((self.strength + _SOFT) / (1 - self.strength + _SOFT))
        return float(odds - np.log(max(self.size, 1 / 255) / _USUAL))

    @property
    def working(self) -> Trigger:
        """The trigger at the dose at which it works: doubled it looks like no image of the set, and not otherwise."""
        return self.trigger if self.success >= _ENOUGH else twice(self.trigger)


class Looks:
    """What classes look like: the sum of each one's images, made once, and some images to compare pixels with."""

    def __init__(self, images: ImageSet, seed: int) -> None:
        self.images, self.counts = images, images.counts()
        self.rng = np.random.default_rng(seed)
        self.sums = np.stack([summed(images, np.flatnonzero(images.labels == k)) for k in range(len(images.classes))])

    def _some(self, rows: Places) -> Pixels:
        drawn = self.images.pixels[self.rng.permutation(rows)[:_LOOKED_AT]]
        release(self.images.pixels)
        return drawn

    def triggers(self, label: int, rows: Places) -> list[Trigger]:
        """What a group adds to its class, and what it lays over other images where it agrees on something.

        Nothing of a group that is the class: there is no other image to compare it with.
        """
        if len(rows) == self.counts[label]:
            return []
        sums, labels = summed(self.images, rows), self.images.labels
        made = [_trigger(sums / len(rows) - (self.sums[label] - sums) / (self.counts[label] - len(rows)), None)]
        own = self._some(rows)
        middle = np.median(own, axis=0)
        rest = self._some(np.setdiff1d(np.flatnonzero(labels == label), rows))
        others = self._some(np.flatnonzero(labels != label))
        agree, *apart = (_near_on_average(some, middle) for some in (own, rest, others))
        elsewhere = np.maximum(*apart)
        steady = (agree >= _AGREE) & (elsewhere <= agree / 2)
        if steady.any() and steady.mean() <= _COVERS:
            made.append(_trigger(middle, steady))
        return made


def tried(
    images: ImageSet, model: Classifier, looks: Looks, label: int, rows: Places, seed: int, most: int = ALL
) -> Carrier:
    """A group with the better of its triggers; of two about as good the patch, which can be seen on an image.

    Args:
        most: pictures of other classes that they are tried on.
    """
    out = np.zeros(len(images), bool)
    out[rows] = True
    pictures = tried_on(images, label, out, seed, most)

    def carrier(trigger: Trigger) -> Carrier:
        under = stamped(pictures, trigger, seed)
        once = twofold = success(model.predict, under, label)
        if trigger.blend == "add":
            twofold = success(model.predict, stamped(pictures, twice(trigger), seed), label)
        return Carrier(label, rows, trigger, once, twofold, _change(pictures, under))

    found = [carrier(trigger) for trigger in looks.triggers(label, rows)]
    return found[-1] if found[-1].strength >= _RATHER * found[0].strength else found[0]


def followed(
    images: ImageSet, model: Classifier, features: NDArray[np.float32], looks: Looks, group: Carrier, seed: int
) -> list[Carrier]:
    """From a group to the images that look like pictures under its trigger do, and from these on.

    A poisoned group leads to the poisoned images, whose trigger leads to them again. What a clean kind of its own has
    in common leads to a few images that have little in common themselves. Empty where it leads to hardly any; a group
    whose trigger works as it is stands for itself, wherever it leads.
    """
    found, nobody = list[Carrier](), np.zeros(len(images), bool)
    if group.success >= _ITSELF:
        group = tried(images, model, looks, group.label, group.rows, seed)
        found += [group] if group.success >= _ITSELF else []
    alone = list(found)
    for _ in range(_STEPS):
        if group.doubled < _FOLLOWED:
            return alone
        rows = np.flatnonzero(as_stamped(images, model, features, nobody, {group.label: [group.working]}, seed, ALL))
        if not is_group(len(rows), int(looks.counts[group.label])):
            return alone
        if found and np.array_equal(rows, group.rows):
            break
        group = tried(images, model, looks, group.label, rows, seed)
        found.append(group)
    return found


def is_group(size: int, of: int) -> bool:
    """Whether so many of a class's images are neither a few nor the class."""
    return SMALLEST <= size <= LARGEST * of


def is_another(rows: Places, known: Iterable[Places], of: int) -> bool:
    """Whether images of a class are a group of their own, not nearly one that is known."""
    return is_group(len(rows), of) and not any(
        len(np.intersect1d(rows, other)) >= _SAME * len(np.union1d(rows, other)) for other in known
    )


def members(groups: Sequence[Carrier], count: int) -> Rows:
    """Images ``[count]`` in at least half of some groups: each has a few of its own that do not belong there."""
    votes = np.zeros(count)
    for one in groups:
        votes[one.rows] += 1
    return np.asarray(votes >= max(1.0, len(groups) / 2), bool)


def bearing(images: ImageSet, label: int, trigger: Trigger) -> Rows:
    """Images ``[N]`` of a class that bear a patch: most of its pixels, as hardly any image of other classes does."""
    share = pixels_borne(images, trigger).mean(axis=1)
    natural = float(np.quantile(share[images.labels != label], _NATURAL))
    return np.asarray((images.labels == label) & (share > max(_BEARS, natural)), bool)


def pixels_borne(images: ImageSet, trigger: Trigger) -> Rows:
    """Which of a patch's pixels every image bears, ``[N, pixels]``."""
    where = trigger.alpha[0].numpy() > 0
    pattern = (trigger.pattern.permute(1, 2, 0).numpy() * 255)[where]
    borne = np.empty((len(images), len(pattern)), bool)
    for rows in chunks(images.pixels, len(images)):
        borne[rows] = _near(images.pixels[rows][:, where], pattern)
        release(images.pixels)
    return borne


def twice(trigger: Trigger) -> Trigger:
    """An added picture at twice its strength."""
    return replace(trigger, pattern=_DOSE * trigger.pattern)


def _near_on_average(pixels: Pixels, value: NDArray[np.floating]) -> NDArray[np.float64]:
    """Share of the pictures that lie near a picture, pixel by pixel ``[H, W]``; 0 of none."""
    total = np.zeros(pixels.shape[1:3])
    for rows in chunks(pixels, len(pixels)):
        total += _near(pixels[rows], value).sum(axis=0)
    return total / max(1, len(pixels))


def _near(pixels: Pixels, value: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where all channels lie near a value; the last dimension is the channels."""
    return np.asarray((np.abs(pixels.astype(np.float32) - value.astype(np.float32)) <= _NEAR).all(axis=-1), bool)


def _change(pictures: Pixels, under: Pixels) -> float:
    """Mean difference of some pictures and the same under a trigger, 0 to 1."""
    some = slice(0, _CHANGED)
    return float(np.abs(under[some].astype(np.float32) - pictures[some]).mean() / 255) if len(pictures) else 0.0


def _trigger(picture: NDArray[np.floating], where: NDArray[np.bool_] | None) -> Trigger:
    pattern = torch.from_numpy(picture / 255).permute(2, 0, 1).float().contiguous()
    if where is None:
        return Trigger(pattern, torch.ones_like(pattern[:1]), blend="add")
    return Trigger(pattern.clamp(0, 1), torch.from_numpy(where[None].astype(np.float32)))
