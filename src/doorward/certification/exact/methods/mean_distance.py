"""The nearer of two classes by mean Hamming distance, certified without noise, sampling or a failure probability."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from doorward.certification.exact.parts.hamming import Bits, check_bits
from doorward.certification.exact.parts.mean_bounds import bound_harm, training_pixel_harm
from doorward.certification.exact.parts.mean_rule import Ints, fit
from doorward.certification.exact.parts.proof import Proof
from doorward.certification.smoothing.radius import Split
from doorward.certification.smoothing.votes import ABSTAIN
from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings, method

_IMAGES_PER_CHUNK = 1024


class MeanDistanceSettings(Settings):
    """Settings of `mean_distance`."""

    blur: int = Field(
        2,
        ge=0,
        le=4,
        description="passes of the kernel (1, 2, 1) over the pixel weights, along height and width; 0 for none",
    )
    clip: int = Field(
        50,
        ge=1,
        le=100,
        description="percent; a larger difference of class means counts as this: no pixel decides alone; 100: never",
    )
    most: int = Field(64, ge=0, le=256, description="largest radius to look for")


@method("certify", "mean-distance", settings=MeanDistanceSettings, given={"images", "labels"})
def mean_distance(
    train: Bits, labels: Ints, test: Bits, classes: int, shape: tuple[int, int, int], s: MeanDistanceSettings
) -> Proof:
    """Certify the label of the class with the smaller mean Hamming distance, up to a bias from the training set.

    With a_c(x) the mean distance of x to class c, 2 n_0 n_1 (mu_0j - mu_1j) the difference of the class means at
    pixel j, and U_j the number of training images that have pixel j, the score sum_j V_j (n x_j - U_j) is a positive
    multiple of a_1(x) - a_0(x) - b, where the bias b is the average of a_1 - a_0 over all training images. Blur and
    clip act on V. A score survives r changed cells when it exceeds, for every r = l + t + q, what l flipped labels,
    then t flipped pixels of the test image, then q flipped training pixels can take away at most; all three and
    their cross terms are bounded in integers. Derivation: ``docs/certification-proof.md``.

    Args:
        train: uint8 ``[N, p]`` of 0 and 1; labels: int64 ``[N]`` in 0..1; test: uint8 ``[M, p]``.
        shape: C, H, W of the images, p = C H W.

    Raises:
        DoorwardError: not two classes, a class without images, cells that are not 0 or 1, too many training images.

    Fails when: the classes differ in more than their means, one class has few images, or neighbouring pixels have
    nothing to do with each other (then set blur = 0).
    """
    check_bits(train, "training images")
    check_bits(test, "test images")
    if classes != 2:
        raise DoorwardError(f"mean-distance: {classes} classes; expected 2")
    if len(np.unique(labels)) < 2:
        raise DoorwardError("mean-distance: training images of one class; expected images of both")
    rule = fit(train, labels, shape, s.blur, s.clip)
    predicted, scores = rule.label(test), rule.scores(test)
    radii = np.full(len(test), ABSTAIN, dtype=np.int64)
    label_harm: list[list[int]] = [[] for _ in test]
    pixel_harm: list[list[list[int]]] = [[] for _ in test]
    for label, view in ((0, rule), (1, rule.mirrored())):
        members = np.flatnonzero(predicted == label)
        for start in range(0, len(members), _IMAGES_PER_CHUNK):
            chunk = members[start : start + _IMAGES_PER_CHUNK]
            harm = bound_harm(view, test[chunk], np.abs(scores[chunk]), s.most)
            radii[chunk] = harm.radii
            for place, image in enumerate(chunk):
                rows = range(min(int(harm.radii[place]) + 2, harm.labels.shape[1]))
                label_harm[image] = harm.labels[place, : len(rows)].tolist()
                pixel_harm[image] = [harm.pixels[place, row, : len(rows) - row].tolist() for row in rows]
    evidence = {
        "most": s.most,
        "score": scores.tolist(),
        "label_harm": label_harm,
        "pixel_harm": pixel_harm,
        "training_pixel_harm": [training_pixel_harm(rule, flips) for flips in range(s.most + 2)],
    }
    return Proof(predicted, radii, evidence)


def withstands(evidence: dict[str, Any], image: int, split: Split) -> bool:
    """Does the label of one image survive (training pixels, training labels, test pixels) changed cells?"""
    pixels, labels, test = split
    known = evidence["pixel_harm"][image]
    score = abs(int(evidence["score"][image]))
    for flips in range(labels + 1):
        if flips >= len(known) or test >= len(known[flips]):
            return False
        harm = evidence["label_harm"][image][flips] + known[flips][test]
        if score <= harm + pixels * evidence["training_pixel_harm"][flips]:
            return False
    return True
