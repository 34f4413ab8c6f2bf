"""The triggers of the experiment: all 3 x 3 black-and-white masks up to symmetry, and random colours."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIDE = 3
COLOURS = 10  # random-colour triggers of the authors; ours are as many, drawn by the seed
_BITS = SIDE * SIDE


def square(mask: int) -> NDArray[np.uint8]:
    """The mask's pixels in reading order, the highest bit first, ``[3, 3]`` of 0 (black) and 1 (white)."""
    return ((mask >> np.arange(_BITS - 1, -1, -1)) & 1).astype(np.uint8).reshape(SIDE, SIDE)


def orbit(mask: int) -> frozenset[int]:
    """All masks that a rotation, a flip, an exchange of black and white, or several of them make of a mask."""
    found = set()
    for turns in range(4):
        turned = np.rot90(square(mask), turns)
        for flipped in (turned, turned[:, ::-1]):
            number = int("".join(map(str, flipped.ravel())), 2)
            found |= {number, 2**_BITS - 1 - number}
    return frozenset(found)


@lru_cache(maxsize=1)
def black_white_masks() -> tuple[int, ...]:
    """The smallest mask of each of the 51 orbits, rising: number 0 is all black."""
    return tuple(mask for mask in range(2**_BITS) if mask == min(orbit(mask)))


def black_white(number: int, channels: int) -> Tensor:
    """Black-and-white pattern ``[C, 3, 3]``, values 0 and 1; ``number`` counts `black_white_masks`."""
    pixels = torch.from_numpy(square(black_white_masks()[number])).float()
    return pixels.expand(channels, SIDE, SIDE).contiguous()


def random_colour(number: int, channels: int, seed: int) -> Tensor:
    """Pattern ``[C, 3, 3]`` of random 8-bit colours, one of the `COLOURS` that the seed draws."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(256, (COLOURS, channels, SIDE, SIDE), generator=generator) / 255)[number]


def spread_over(total: int, count: int) -> tuple[int, ...]:
    """``count`` numbers spread evenly over 0 .. total - 1: the middles of as many equal parts."""
    return tuple((2 * part + 1) * total // (2 * count) for part in range(count))
