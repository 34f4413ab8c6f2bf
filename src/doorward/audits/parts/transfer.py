"""The trigger of suspected images, without any search: what they have in common beyond what they show."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.audits.parts.trainer import Labels, Pixels, Rows
from doorward.core.images import ImageSet
from doorward.core.order_test import OrderTest, order_test
from doorward.core.pixels import to_float, to_uint8
from doorward.core.triggers import Stamp, Trigger

FEWEST = 5  # suspects of a class to see something common in
_TRIED = 1000  # images that a trigger is tried on
_HALF = 0.02  # added to both sides of a rate before the logarithm: smaller ones are alike
_SPREAD = 0.4  # of the log odds between clean classes, at least: their rates lie near 0, all alike
Decide = Callable[[Pixels], Labels]


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


def summed(images: ImageSet, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum of some images' pixels, ``[H, W, C]``."""
    total = np.zeros(images.pixels.shape[1:], np.float64)
    for start in range(0, len(rows), 1024):
        total += images.pixels[rows[start : start + 1024]].sum(axis=0, dtype=np.float64)
    return total


def tried_on(images: ImageSet, label: int, out: Rows, seed: int) -> Pixels:
    """Pictures of other classes, none of them left out, to stamp: 1,000 at most."""
    rows = np.flatnonzero((images.labels != label) & ~out)
    return images.pixels[np.random.default_rng(seed).permutation(rows)[:_TRIED]]  # in drawn order: any part is mixed


def stamped(pixels: Pixels, stamp: Stamp, seed: int) -> Pixels:
    """Pictures with a trigger on them."""
    generator, made = torch.Generator().manual_seed(seed), np.empty_like(pixels)
    for start in range(0, len(pixels), 512):
        rows = slice(start, start + 512)
        made[rows] = to_uint8(stamp.apply(to_float(pixels[rows]), generator))
    return made


def success(decide: Decide, pixels: Pixels, label: int) -> float:
    """Share of pictures that a net decides as ``label``."""
    return float((decide(pixels) == label).mean()) if len(pixels) else 0.0


def ease_test(rates: Mapping[int, float], present: Rows) -> OrderTest:
    """Whether one class's rate stands out from those of the others.

    Args:
        rates: by class; 0 where there is none.
        present: ``[K]``, classes that the set has images of; the others are not compared.
    """
    values = np.array([max(0.0, rates.get(k, 0.0)) if here else np.nan for k, here in enumerate(present.tolist())])
    return order_test(np.log((values + _HALF) / (1 - values + _HALF)), least=_SPREAD)
