"""Attack success of inverted triggers, on images that the inversion did not see."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.core.classifier import Classifier
from doorward.core.pixels import to_float, to_uint8
from doorward.core.stats import Rate
from doorward.core.triggers import Stamp

_BYTES_TOGETHER = 16 * 2**20  # of pixels that are stamped at a time, four times as many as floats


def success(
    classifier: Classifier,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    stamp: Stamp,
    target: int,
    *,
    sources: tuple[int, ...] | None = None,
    seed: int = 0,
) -> Rate:
    """Share of images of other classes that the stamped image sends to ``target``.

    Args:
        pixels: clean images, uint8 ``[N, H, W, C]``; stamped ones are rounded to the 8-bit grid, as an attacker's are.
        labels: their classes ``[N]``.
        sources: count images of these classes alone.
        seed: of places and of generated triggers.
    """
    eligible = labels != target if sources is None else np.isin(labels, sources) & (labels != target)
    rows = np.flatnonzero(eligible)
    generator, hits = torch.Generator().manual_seed(seed), 0
    together = max(1, min(512, _BYTES_TOGETHER // pixels[:1].size))
    for start in range(0, len(rows), together):
        stamped = stamp.apply(to_float(pixels[rows[start : start + together]]), generator)
        hits += int((classifier.predict(to_uint8(stamped)) == target).sum())
    return Rate(hits, len(rows))
