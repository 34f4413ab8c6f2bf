"""Bernoulli naive Bayes on binary pixels, in fixed-point logarithms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.certification.smoothing.parts import linear
from doorward.certification.smoothing.task import NoisyBlock
from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings, method

_UNIT = 1 << 10  # logarithms are multiples of 1 / 1024


class NaiveBayes(Settings):
    """Settings of naive Bayes."""

    smoothing: int = Field(1, ge=1, le=1000, description="added to every count, a whole number (1: Laplace)")
    draw_counts: bool = Field(True, description="draw the counts from their own distribution, much faster")


@method("certify", "naive-bayes", settings=NaiveBayes, given={"images", "labels", "noise"})
def naive_bayes(block: NoisyBlock, settings: NaiveBayes) -> NDArray[np.uint8]:
    """Predict the class with the largest posterior, the pixels being independent given the class.

    A base learner for flip smoothing (Wang, Cao, Jia and Gong 2020).

    Fails when: pixels take more than two values; classes that differ in how pixels go together.

    Returns: uint8 ``[B, m]``, predicted classes.
    Raises: DoorwardError when the domain has more than two values.
    """
    if block.task.domain != 2:
        raise DoorwardError(f"certify naive-bayes: {block.task.domain} values per pixel; expected 2 (binarise them)")
    add, n = settings.smoothing, len(block.task.labels)
    logs = np.rint(np.log(np.arange(1, n + 2 * add + 1)) * _UNIT).astype(np.float32)  # logs[k - 1] is log k
    sizes = block.class_sizes
    ones = block.drawn_class_sums() if settings.draw_counts else block.class_sums()
    log_one = logs[ones + (add - 1)]
    log_zero = logs[sizes[:, :, None] - ones + (add - 1)]
    prior = np.where(sizes > 0, logs[np.maximum(sizes, 1) - 1], linear.NEVER)
    bias = prior + log_zero.sum(axis=2, dtype=np.float64) - ones.shape[2] * logs[sizes + (2 * add - 1)]
    return linear.predict(block, log_one - log_zero, bias)
