"""Images that lie with others in feature space: with stamped pictures, or with some of their own class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from doorward.cleansers.observe import observe
from doorward.cleansers.parts.stamping import Rows, stamped, tried_on
from doorward.cleansers.parts.threads import one_thread
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.triggers import Stamp

if TYPE_CHECKING:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

_FEWEST_STAMPED = 20  # pictures that a trigger turns, to compare a class with
_PASSES = 5
_HALF = 0.5  # of a class
FEWEST = 3  # images whose like are looked for


def as_stamped(
    images: ImageSet,
    model: Classifier,
    features: NDArray[np.float32],
    suspects: Rows,
    triggers: Mapping[int, Sequence[Stamp]],
    seed: int,
    most: int | None = None,
) -> Rows:
    """Images ``[N]`` that lie with stamped pictures of other classes, not with their own class, in feature space.

    A linear discriminant between the two, where at least so many stamped pictures are decided as the class; a trigger
    that would take half of a class separates nothing and is passed over.

    Args:
        most: pictures that are stamped; None for a thousand.
    """
    found = np.zeros(len(images), bool)
    for label, stamps in triggers.items():
        rows = np.flatnonzero(images.labels == label)
        for stamp in stamps if len(rows) else ():
            pictures = stamped(tried_on(images, label, suspects, seed, most), stamp, seed)
            whole = ImageSet(pictures, np.full(len(pictures), label), images.classes, images.name)
            seen = observe(whole, model, alike=True)
            works = seen.logits.argmax(axis=1) == label
            if works.sum() < _FEWEST_STAMPED:
                continue
            found[rows] |= _on_their_side(features[rows], seen.features[works], suspects[rows])
    return found


def _on_their_side(own: NDArray[np.float32], others: NDArray[np.float32], suspects: Rows) -> Rows:
    """Images ``[n]`` of a class that lie with the others; they are no longer counted to the class, until none comes."""
    out = suspects.copy() if suspects.mean() < _HALF else np.zeros_like(suspects)
    for _ in range(_PASSES):
        both = np.concatenate([own[~out], others])
        with one_thread():
            between = discriminant().fit(both, np.repeat([False, True], [(~out).sum(), len(others)]))
            side = np.asarray(between.decision_function(own) > 0, bool)
        if (out | side).mean() >= _HALF:
            return np.zeros(len(own), bool)
        if not (side & ~out).any():
            break
        out |= side
    return side


def alike(features: NDArray[np.float32], suspects: Rows, labels: NDArray[np.int64]) -> Rows:
    """Images ``[N]`` of the suspects' classes on their side of a linear discriminant."""
    found = np.zeros(len(labels), bool)
    for label in np.unique(labels[suspects]):
        rows = np.flatnonzero(labels == label)
        inside = suspects[rows]
        if not FEWEST <= inside.sum() < len(rows) - FEWEST:
            continue
        with one_thread():
            found[rows] = discriminant().fit(features[rows], inside).decision_function(features[rows]) > 0
    return found


def discriminant() -> LinearDiscriminantAnalysis:
    """Between two groups of unlike size that count alike."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.1, priors=[0.5, 0.5])
