"""Triggers tried on images: sums of pixels, stamped pictures, how many of them go to a class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.core.images import ImageSet
from doorward.core.pixels import to_float, to_uint8
from doorward.core.triggers import Stamp

Rows = NDArray[np.bool_]
Labels = NDArray[np.int64]
Pixels = NDArray[np.uint8]
Decide = Callable[[Pixels], Labels]
_TRIED = 1000  # images that a trigger is tried on


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


def at_work(images: ImageSet, label: int, out: Rows, trigger: Stamp, seed: int, most: int) -> tuple[Pixels, Pixels]:
    """Some pictures of other classes, none of them left out, and the same under a trigger; to be looked at."""
    before = tried_on(images, label, out, seed)[:most]
    return before, stamped(before, trigger, seed)


def success(decide: Decide, pixels: Pixels, label: int) -> float:
    """Share of pictures that a net decides as ``label``."""
    return float((decide(pixels) == label).mean()) if len(pixels) else 0.0
