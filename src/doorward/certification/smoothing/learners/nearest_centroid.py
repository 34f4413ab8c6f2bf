"""Nearest centroid: the closed-form learner that withstands most noise for its cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.certification.smoothing.parts import linear
from doorward.certification.smoothing.task import NoisyBlock
from doorward.core.methods import Settings, method

_LIMIT = 1 << 23  # scores stay below it, so that float32 holds them and their differences exactly


class NearestCentroid(Settings):
    """Settings of nearest centroid; class sums are drawn as `counts` says."""

    draw_counts: bool = Field(True, description="draw the class sums from their own distribution, much faster")


@method("certify", "nearest-centroid", settings=NearestCentroid, given={"images", "labels", "noise"})
def nearest_centroid(block: NoisyBlock, settings: NearestCentroid) -> NDArray[np.uint8]:
    """Predict the class whose mean image is nearest in Euclidean distance.

    mu_c . x - |mu_c|^2 / 2 is largest; the means are rounded to multiples of a power of two, so that scores are exact.
    A base learner for flip smoothing (Wang, Cao, Jia and Gong 2020).

    Fails when: classes differ in more than their mean, or the noisy labels leave a class without images (then
    that class is never predicted).

    Returns: uint8 ``[B, m]``, predicted classes.
    """
    sizes = block.class_sizes
    sums = block.drawn_class_sums() if settings.draw_counts else block.class_sums()
    highest = sums.shape[2] * (block.task.domain - 1) ** 2
    grid = 1 << max(0, (_LIMIT // highest).bit_length() - 1)
    share = (grid / np.maximum(sizes, 1)).astype(np.float32)
    means = np.rint(sums * share[:, :, None], dtype=np.float32)  # one product, rounded by IEEE 754: the same anywhere
    bias = -np.floor((means.astype(np.float64) ** 2).sum(axis=2) / (2 * grid))  # a sum of whole numbers below 2^53
    return linear.predict(block, means, np.where(sizes > 0, bias, linear.NEVER))
