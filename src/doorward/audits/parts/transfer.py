"""The trigger of suspected images, without any search: what they have in common beyond what they show."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.cleansers.parts.stamping import Labels, Rows, summed
from doorward.core.images import ImageSet
from doorward.core.order_test import OrderTest, order_test
from doorward.core.triggers import Trigger

FEWEST = 5  # suspects of a class to see something common in
_HALF = 0.02  # added to both sides of a rate before the logarithm: smaller ones are alike
_SPREAD = 0.4  # of the log odds between clean classes, at least: their rates lie near 0, all alike


def transferred(images: ImageSet, suspects: Rows, decisions: Labels) -> dict[int, Trigger]:
    """For every class with suspects the picture that they share, to be added to other images.

    A suspect shows the class that nets without it decide for; the mean image of that class is taken off, and the mean
    of what is left over all suspects of a label is their trigger: exact for additive ones, right at the pixels of a
    patch. One that moves or warps leaves nothing.

    Args:
        suspects: ``[N]``.
        decisions: ``[N]``, what each of them shows.
    """
    means = {}
    for shown in range(len(images.classes)):
        rows = np.flatnonzero((images.labels == shown) & ~suspects)
        if len(rows):
            means[shown] = _mean(images, rows)
    found = {}
    for label in range(len(images.classes)):
        rows = np.flatnonzero(suspects & (images.labels == label))
        rows = (
            rows[[int(decisions[r]) in means and decisions[r] != label for r in rows.tolist()]] if len(rows) else rows
        )
        if len(rows) < FEWEST:
            continue
        left = _mean(images, rows) - np.mean([means[int(decisions[r])] for r in rows.tolist()], axis=0)
        pattern = torch.from_numpy(left / 255).permute(2, 0, 1).float().contiguous()
        found[label] = Trigger(pattern, torch.ones_like(pattern[:1]), blend="add")
    return found


def _mean(images: ImageSet, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return summed(images, rows) / len(rows)


def ease_test(rates: Mapping[int, float], present: Rows) -> OrderTest:
    """Whether one class's rate stands out from those of the others.

    Args:
        rates: by class; 0 where there is none.
        present: ``[K]``, classes that the set has images of; the others are not compared.
    """
    values = np.array([max(0.0, rates.get(k, 0.0)) if here else np.nan for k, here in enumerate(present.tolist())])
    return order_test(np.log((values + _HALF) / (1 - values + _HALF)), least=_SPREAD)
