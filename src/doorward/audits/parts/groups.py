"""Groups of images that carry a trigger: what such a group has in common sends other images to its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from doorward.cleansers.parts.carried import ALL, Carrier, Looks, is_another, members, tried
from doorward.cleansers.parts.likeness import as_stamped
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.triggers import Stamp

STAGE = "groups"
_AS_GOOD = 0.5  # of a class's best success, from which other groups count too
Places = NDArray[np.int64]


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

    Returns: groups of 8 images up to 60 % of a class, each once, with their success.

    Fails when: no group is mostly poisoned, the trigger moves from image to image or warps them.
    """
    nobody, every = np.zeros(len(images), bool), list(marks)
    for number in range(max((len(some) for some in triggers.values()), default=0)):
        one = {label: some[number : number + 1] for label, some in triggers.items()}
        every.append(as_stamped(images, model, features, nobody, one, seed, ALL))
    looks = Looks(images, seed)
    return [tried(images, model, looks, label, rows, seed) for label, rows in _groups(images.labels, every)]


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
    return members(good, count)


def _groups(labels: NDArray[np.int64], marks: Sequence[NDArray[np.bool_]]) -> list[tuple[int, Places]]:
    """Class and images of every group that is neither tiny nor the class, nor nearly another one."""
    found: list[tuple[int, Places]] = []
    for marked in marks:
        for label in np.unique(labels[marked]).tolist():
            rows = np.flatnonzero(marked & (labels == label))
            known = (other for of, other in found if of == label)
            if is_another(rows, known, int((labels == label).sum())):
                found.append((label, rows))
    return found
