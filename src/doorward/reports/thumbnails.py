"""Thumbnails: decoded pixels re-encoded as PNG by us, inlined, within a budget of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

LONGEST_STRIP = 16
SHORTEST_STRIP = 4
_LARGEST_SIDE = 64
_MARKUP_BYTES = 90  # of the <img> around the data

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Thumbnail:
    """One image as the page holds it."""

    uri: Markup  # our own base64: as text from outside it would be cut at some length
    pixelated: bool


def encode(pixels: NDArray[np.uint8]) -> Thumbnail:
    """PNG data URI of one image ``[H, W, 1 or 3]``, shrunk to at most 64 pixels on its longer side."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
    small = max(image.size) <= _LARGEST_SIDE
    if not small:
        image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return Thumbnail(Markup("data:image/png;base64," + base64.b64encode(file.getvalue()).decode()), small)


def strips(pixels: NDArray[np.uint8], rows: Mapping[Key, list[int]], budget: int) -> dict[Key, list[Thumbnail]]:
    """The images of every strip, as many of each as fit.

    Args:
        pixels: uint8 ``[M, H, W, C]``.
        rows: for every strip, most important strip first, the rows to show, most important first.
        budget: bytes that all strips together may take on the page.

    All strips get equally many images, 16 at most. When that would be fewer than 4, the last strips get none.
    """
    wanted = {key: list(r[:LONGEST_STRIP]) for key, r in rows.items() if r}
    if not wanted:
        return {}
    trial = [_size(encode(pixels[r[0]])) for r in list(wanted.values())[:8]]
    each = sum(trial) / len(trial)
    length = int(budget // (each * len(wanted)))
    if length < SHORTEST_STRIP:
        length = SHORTEST_STRIP
        wanted = dict(list(wanted.items())[: int(budget // (each * length))])
    shown: dict[Key, list[Thumbnail]] = {}
    for key, strip in wanted.items():
        for row in strip[:length]:
            thumbnail = encode(pixels[row])
            budget -= _size(thumbnail)
            if budget < 0:
                return shown
            shown.setdefault(key, []).append(thumbnail)
    return shown


def _size(thumbnail: Thumbnail) -> int:
    return len(thumbnail.uri) + _MARKUP_BYTES
