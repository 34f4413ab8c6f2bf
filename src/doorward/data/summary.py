"""What a set holds, in numbers."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.images import ImageSet
from doorward.core.memmaps import release
from doorward.core.progress import display

FEW_IMAGES = 20
_FEW = 5  # names in a line
_SQUARES = np.arange(256, dtype=np.int64) ** 2


def describe(images: ImageSet) -> dict[str, Any]:
    """Size, classes, statistics, hash and duplicates of an image set, as plain JSON values.

    Returns:
        ``name``, ``images`` (number), ``shape`` (channels, height, width), ``classes`` (list of name and count),
        ``mean`` and ``std`` (per channel, of pixels in [0, 1]; population standard deviation), ``sha256``,
        ``duplicates`` (see `duplicates`), ``converted`` (kind -> number of pictures), ``skipped`` (name -> reason) and
        ``warnings``.
    """
    counts = images.counts()
    mean, std = channel_statistics(images)
    twins = duplicates(images)
    return {
        "name": images.name,
        "images": len(images),
        "shape": list(images.shape),
        "classes": [{"name": c, "count": int(n)} for c, n in zip(images.classes, counts, strict=True)],
        "mean": mean,
        "std": std,
        "sha256": images.hash,
        "duplicates": twins,
        "converted": _told(images, "converted"),
        "skipped": _told(images, "skipped"),
        "warnings": [*_warnings(images, counts, twins), *_notes(images)],
    }


def conversions(images: ImageSet) -> tuple[str, ...]:
    """What was converted and left out when the pictures were read, in words."""
    changed, skipped = _told(images, "converted"), _told(images, "skipped")
    size = " to {1} x {2}".format(*images.shape)
    ending = {"resized": size, "enlarged": size}
    told = [f"{images.name}: {count:,} pictures {kind}{ending.get(kind, '')}" for kind, count in changed.items()]
    told += [f"{images.name}: {name} left out: {why}" for name, why in list(skipped.items())[:_FEW]]
    if len(skipped) > _FEW:
        told.append(f"{images.name}: {len(skipped) - _FEW:,} more left out")
    return tuple(told)


def channel_statistics(images: ImageSet) -> tuple[list[float], list[float]]:
    """Mean and population standard deviation per channel of pixels in [0, 1], from exact integer sums."""
    channels = images.shape[0]
    total, squares = [0] * channels, [0] * channels
    rows = max(1, 2**22 // int(np.prod(images.shape)))
    for part in images.chunks(rows):
        flat = images.pixels[part].reshape(-1, channels)
        for channel in range(channels):
            levels = np.bincount(flat[:, channel], minlength=256)
            total[channel] += int(levels @ np.arange(256))
            squares[channel] += int(levels @ _SQUARES)
        release(images.pixels)
    count = len(images) * images.shape[1] * images.shape[2]
    mean = [t / count for t in total]
    std = [float(np.sqrt(max(0, q * count - t * t)) / count) for q, t in zip(squares, total, strict=True)]
    return [m / 255 for m in mean], [s / 255 for s in std]


def duplicates(images: ImageSet) -> dict[str, Any]:
    """Images whose pixels are the same, bit by bit.

    Returns:
        ``images``: how many are a copy of an earlier one; ``groups``: how many pictures occur more than once;
        ``conflicting``: how many images have a copy with another label; ``examples``: indices of up to ten groups,
        those with different labels first; ``ids``: the same by name.
    """
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    with display() as progress:
        for part in images.chunks():
            rows = np.ascontiguousarray(images.pixels[part])
            for index, row in enumerate(rows, part.start):
                groups[hashlib.blake2b(row.data, digest_size=16).digest()].append(index)
            release(images.pixels)
            progress("comparing images", part.stop, len(images))
    twins = [members for members in groups.values() if len(members) > 1]
    conflicting = [m for m in twins if len(set(images.labels[m].tolist())) > 1]
    agreeing = [m for m in twins if len(set(images.labels[m].tolist())) == 1]
    examples = [m[:10] for m in [*conflicting, *agreeing][:10]]
    return {
        "images": sum(len(m) - 1 for m in twins),
        "groups": len(twins),
        "conflicting": sum(map(len, conflicting)),
        "examples": examples,
        "ids": [[images.image_id(i) for i in m] for m in examples],
    }


def _warnings(images: ImageSet, counts: NDArray[np.int64], twins: dict[str, Any]) -> list[str]:
    found = []
    few = [(name, int(n)) for name, n in zip(images.classes, counts, strict=True) if n < FEW_IMAGES]
    if few:
        listed = ", ".join(f"{name!r} ({n})" for name, n in few[:5]) + (", ..." if len(few) > 5 else "")
        found.append(f"{len(few)} class(es) with fewer than {FEW_IMAGES} images: {listed}")
    if twins["conflicting"]:
        found.append(f"{twins['conflicting']} images have an exact copy with another label")
    if twins["images"]:
        found.append(f"{twins['images']} images are exact copies of an earlier one")
    if images.pixels.size and counts.max() > 10 * max(1, int(counts[counts > 0].min())):
        found.append(f"the largest class has {int(counts.max())} images, the smallest {int(counts[counts > 0].min())}")
    return found


def _told(images: ImageSet, key: str) -> dict[str, Any]:
    found = images.provenance.get(key)
    return dict(found) if isinstance(found, dict) else {}


def _notes(images: ImageSet) -> list[str]:
    notes = images.provenance.get("notes", [])
    return [str(note) for note in notes] if isinstance(notes, list) else []
