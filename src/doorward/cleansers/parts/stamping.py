"""Triggers tried on images: sums of pixels, stamped pictures, how many of them go to a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.core.images import ImageSet
from doorward.core.memmaps import release
from doorward.core.pixels import to_float, to_uint8
from doorward.core.triggers import Stamp

Rows = NDArray[np.bool_]
Labels = NDArray[np.int64]
Pixels = NDArray[np.uint8]
Decide = Callable[[Pixels], Labels]
_TRIED = 1000  # images that a trigger is tried on
_AT_ONCE = 1 << 22  # values of pixels that are worked on as floats at a time: 16 MiB


def chunks(pixels: Pixels, rows: int) -> Iterator[slice]:
    """Slices of so many rows of images, few enough that large images as floats take little memory."""
    step = max(1, min(512, _AT_ONCE // max(1, int(np.prod(pixels.shape[1:])))))
    for start in range(0, rows, step):
        yield slice(start, start + step)


def summed(images: ImageSet, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum of some images' pixels, ``[H, W, C]``."""
    total = np.zeros(images.pixels.shape[1:], np.float64)
    for some in chunks(images.pixels, len(rows)):
        total += images.pixels[rows[some]].sum(axis=0, dtype=np.float64)
        release(images.pixels)
    return total


def tried_on(images: ImageSet, label: int, out: Rows, seed: int, most: int | None = None) -> Pixels:
    """Pictures of other classes, none of them left out, to stamp: so many at most, or 1,000."""
    rows = np.flatnonzero((images.labels != label) & ~out)
    drawn = images.pixels[np.random.default_rng(seed).permutation(rows)[: most or _TRIED]]
    release(images.pixels)
    return drawn


def stamped(pixels: Pixels, stamp: Stamp, seed: int) -> Pixels:
    """Pictures with a trigger on them."""
    generator, made = torch.Generator().manual_seed(seed), np.empty_like(pixels)
    for rows in chunks(pixels, len(pixels)):
        made[rows] = to_uint8(stamp.apply(to_float(pixels[rows]), generator))
    return made


def at_work(images: ImageSet, label: int, out: Rows, trigger: Stamp, seed: int, most: int) -> tuple[Pixels, Pixels]:
    """Some pictures of other classes, none of them left out, and the same under a trigger; to be looked at."""
    before = tried_on(images, label, out, seed, most)
    return before, stamped(before, trigger, seed)


def success(decide: Decide, pixels: Pixels, label: int) -> float:
    """Share of pictures that a net decides as ``label``."""
    return float((decide(pixels) == label).mean()) if len(pixels) else 0.0
