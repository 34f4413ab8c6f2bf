"""Evidence that helps a person to tell a planted backdoor from a natural one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float
from doorward.core.stats import Rate
from doorward.core.triggers import Trigger
from doorward.inversion.search.measure import success

_WORKS = 0.5  # success under which a trigger is none
_LEVEL = 0.05  # p-value above which a class is as easy to reach as classes are
_FLAT = 1e-6  # standard deviation under which a picture shows nothing


@dataclass(frozen=True)
class Evidence:
    """One target with what speaks for and against a planted trigger.

    Args:
        p_value: of the verdict; None without one.
        size: L1 norm of alpha in pixels.
        share: the same, of the image.
        strength: success on clean images of other classes.
        likeness: chance that a picture of the class shows more of the trigger in its region than a picture of another
            class does (area under the ROC curve; 0.5: no resemblance); None without such pictures.
        transfer: the trigger's success on a clean net; a natural feature leads there too. None without a net.
        reading: the above in words; for a person, no verdict.
    """

    label: int
    p_value: float | None
    size: float
    share: float
    strength: Rate
    likeness: float | None
    transfer: Rate | None
    reading: str


def rank_targets(
    classifier: Classifier,
    triggers: Mapping[int, Trigger],
    images: ImageSet,
    *,
    p_values: Mapping[int, float] | None = None,
    labelled: bool = False,
    reference: Classifier | None = None,
    seed: int = 0,
) -> list[Evidence]:
    """True and natural backdoors together, with the evidence for each, planted ones first.

    Qiao, Yang and Li 2019, "Challenge 1: Naturally exist backdoors": both are found together and repaired together;
    what tells them apart is for a person to weigh.

    Args:
        triggers: found by an inversion, by target class.
        images: clean images, best ones that the inversion did not see.
        p_values: of the verdict, by target class.
        labelled: whether the images' labels are the classifier's classes; `likeness` needs it.
        reference: a net for the same classes that was trained on clean data; `transfer` needs it.

    Raises:
        DoorwardError: images or a reference that do not fit the classifier.
    """
    _check(classifier, images, labelled, reference)
    labels = images.labels if labelled else classifier.predict(images.pixels)
    ranked = []
    for label, trigger in triggers.items():
        strength = success(classifier, images.pixels, labels, trigger, label, seed=seed)
        transfer = None
        if reference is not None:
            transfer = success(reference, images.pixels, labels, trigger, label, seed=seed)
        alike = likeness(trigger, images, label) if labelled else None
        size = (
            float(trigger.alpha.mean(0).sum()) if trigger.blend == "alpha" else float(trigger.size[0] * trigger.size[1])
        )
        p_value = None if p_values is None else p_values.get(label)
        share = size / (images.shape[1] * images.shape[2])
        reading = _reading(strength, alike, transfer, p_value)
        ranked.append(Evidence(label, p_value, size, share, strength, alike, transfer, reading))
    return sorted(
        ranked, key=lambda e: (_natural(e.likeness, e.transfer), 1 if e.p_value is None else e.p_value, e.size)
    )


def likeness(trigger: Trigger, images: ImageSet, label: int) -> float | None:
    """How much more the pictures of a class show the trigger than those of other classes do, 0 .. 1.

    Every picture is correlated with the trigger over its region, weighted by alpha; the area under the ROC curve of the
    class's own pictures against the others. None without pictures of both, or for a trigger that moves, adds or is
    of one colour (which nothing correlates with).
    """
    own = images.labels == label
    if trigger.blend != "alpha" or trigger.placement.kind != "fixed" or not own.any() or own.all():
        return None
    from sklearn.metrics import roc_auc_score

    found = [_correlation(trigger, images.pixels[rows]) for rows in images.chunks(512)]
    scores = np.concatenate(found)
    return None if not np.isfinite(scores).all() else float(roc_auc_score(own, scores))


def _correlation(trigger: Trigger, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Weighted correlation of every image with the trigger, ``[N]``; NaN for a trigger of one colour."""
    (top, left), (h, w) = (trigger.placement.top, trigger.placement.left), trigger.size
    window = to_float(pixels)[:, :, top : top + h, left : left + w].double().flatten(1)
    weight = trigger.alpha.double().cpu().expand_as(trigger.pattern).flatten()
    weight = weight / weight.sum().clamp(min=1e-12)
    picture = trigger.pattern.double().cpu().flatten()
    picture = picture - (weight * picture).sum()
    spread = (weight * picture**2).sum().sqrt()
    window = window - (weight * window).sum(1, keepdim=True)
    product = (weight * window * picture).sum(1) / (weight * window**2).sum(1).sqrt().clamp(min=_FLAT)
    return (product / spread).numpy() if float(spread) > _FLAT else np.full(len(pixels), np.nan)


def _natural(alike: float | None, transfer: Rate | None) -> bool:
    """Whether a natural feature is likelier: by a clean net where there is one, else by the class's own pictures."""
    if transfer is not None and transfer.trials:
        return transfer.value > 0.5
    return alike is not None and alike > 0.9


def _reading(strength: Rate, alike: float | None, transfer: Rate | None, p_value: float | None) -> str:
    told = [f"sends {strength.value:.0%} of other images to the class" if strength.trials else "not measured"]
    if alike is not None:
        told.append(
            "looks like the class's own pictures" if alike > 0.9 else "does not look like the class's own pictures"
        )
    if transfer is not None and transfer.trials:
        told.append(f"works on a clean net for {transfer.value:.0%}")
    said = "; ".join(told)
    if strength.trials and strength.value < _WORKS:
        return said + ": no backdoor by this trigger"
    if p_value is not None and p_value > _LEVEL:
        return said + ": does not stand out among the classes"
    if alike is None and transfer is None:
        return said + ": whether natural or planted cannot be told without labelled pictures or a clean net"
    return said + (": a natural backdoor is likely" if _natural(alike, transfer) else ": a planted backdoor is likely")


def _check(classifier: Classifier, images: ImageSet, labelled: bool, reference: Classifier | None) -> None:
    if images.shape != classifier.shape:
        found, expected = ("x".join(map(str, v)) for v in (images.shape, classifier.shape))
        raise DoorwardError(f"evidence: {images.name}: images of {found}; the classifier takes {expected}")
    if labelled and len(images.classes) != len(classifier.classes):
        found, expected = str(len(images.classes)), str(len(classifier.classes))
        raise DoorwardError(
            f"evidence: {images.name}: {found} classes, the classifier has {expected}; expected the same"
        )
    if reference is not None and (reference.shape, len(reference.classes)) != (
        classifier.shape,
        len(classifier.classes),
    ):
        raise DoorwardError(f"evidence: reference {reference.arch} has another image size or number of classes")
