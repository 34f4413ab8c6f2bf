"""Poisoning a data set: a fixed subset is stamped and relabelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.attacks.plan import Attack
from doorward.core.errors import DoorwardError
from doorward.core.ids import distinct
from doorward.core.images import ImageSet
from doorward.core.memmaps import create, release
from doorward.core.pixels import to_float, to_uint8
from doorward.core.progress import printable
from doorward.core.triggers import Stamp

_BATCH, _LARGE_BATCH = 2048, 256  # images at a time: up to 96 x 96, and larger ones


@dataclass(frozen=True, eq=False)
class Truth:
    """Who is poisoned. For scoring alone: no defence is ever given one.

    Args:
        poisoned: ``[N]``, True where an image was stamped.
        original_label: ``[N]``, the label before the attack.
        stamp: ``[N]``, number of the pairing used, -1 for clean images.
        source_index: ``[N]``, the image's position in the set before the attack.
    """

    poisoned: NDArray[np.bool_]
    original_label: NDArray[np.int64]
    stamp: NDArray[np.int64]
    source_index: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Poisoned:
    """What `poison` gives: the set to train on, and apart from it the truth and the attack."""

    images: ImageSet
    truth: Truth
    attack: Attack

    def __repr__(self) -> str:
        count = f"{int(self.truth.poisoned.sum()):,} of {len(self.images):,} images"
        return printable(f"Poisoned {self.images.name}: {count}; {self.attack.describe(self.images.classes)[:200]}")


def poison(
    images: ImageSet,
    attack: Attack,
    *,
    rate: float | None = None,
    count: int | None = None,
    mode: Literal["replace", "add"] = "replace",
    seed: int = 0,
    pixels_file: Path | str | None = None,
) -> Poisoned:
    """Stamp and relabel a random subset.

    Args:
        images: the clean set.
        attack: stamps and label rules.
        rate: poisoned images per image of the clean set, in (0, 1); or give ``count``, their number.
            Several pairings share the number equally.
        mode: ``replace`` stamps images in place; ``add`` puts stamped copies among the untouched images
            (the setting of Xiang, Miller and Kesidis 2019). Copies are shuffled in, so places tell nothing.
        seed: decides which images, and where stamps of random place go.
        pixels_file: write the poisoned pixels into this ``.npy`` file (memory-mapped) instead of memory.

    Raises:
        DoorwardError: a number that rounds to none, or more than the source classes hold.
    """
    attack.check(len(images.classes))
    rng = np.random.default_rng([seed, 0xA77AC4])
    chosen = _choose(images, attack, _number(images, rate, count), rng)
    layout, stamps = _lay_out(len(images), chosen, mode, rng)
    labels = images.labels[layout].copy()
    pixels = _copy_pixels(images, layout, pixels_file)
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    for index, pairing in enumerate(attack.pairings):
        rows = np.flatnonzero(stamps == index)
        stamp_rows(pixels, rows, pairing.stamp, generator)
        labels[rows] = pairing.targets(labels[rows], len(images.classes))
    truth = Truth(stamps >= 0, images.labels[layout].copy(), stamps, layout)
    ids = _names(images, layout, mode)
    poisoned = replace(images, pixels=pixels, labels=labels, name=images.name, provenance={}, ids=ids)
    return Poisoned(poisoned, truth, attack)


def _number(images: ImageSet, rate: float | None, count: int | None) -> int:
    if (rate is None) == (count is None):
        raise DoorwardError(f"attack: rate {rate} and count {count}; expected exactly one of them")
    if rate is not None and not 0 < rate < 1:
        raise DoorwardError(f"attack: poisoning rate {rate}; expected a number between 0 and 1")
    number = round(rate * len(images)) if rate is not None else int(count or 0)
    if number < 1:
        raise DoorwardError(f"attack: {rate or count} of {len(images)} images is no image; expected at least one")
    return number


def _choose(images: ImageSet, attack: Attack, number: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Rows for each pairing, disjoint, drawn from the rows that its rule allows."""
    taken = np.zeros(len(images), dtype=bool)
    chosen = []
    shares = np.diff(np.linspace(0, number, len(attack.pairings) + 1).round().astype(int))
    for pairing, share in zip(attack.pairings, shares, strict=True):
        allowed = np.flatnonzero(pairing.eligible(images.labels, len(images.classes)) & ~taken)
        if share > len(allowed):
            raise DoorwardError(
                f"attack: {share} images to poison, but the source classes hold {len(allowed)}; expected a lower rate"
            )
        rows = np.sort(rng.choice(allowed, share, replace=False))
        taken[rows] = True
        chosen.append(rows)
    return chosen


def _lay_out(
    count: int, chosen: list[NDArray[np.int64]], mode: str, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every image of the new set its row in the old one, and the number of its pairing or -1."""
    stamps = np.full(count, -1, dtype=np.int64)
    if mode == "replace":
        for index, rows in enumerate(chosen):
            stamps[rows] = index
        return np.arange(count), stamps
    added = np.concatenate([np.full(len(rows), index) for index, rows in enumerate(chosen)])
    layout = np.concatenate([np.arange(count), *chosen])
    stamps = np.concatenate([stamps, added])
    order = rng.permutation(len(layout))
    return layout[order], stamps[order]


def _names(images: ImageSet, layout: NDArray[np.int64], mode: str) -> Sequence[str]:
    """Ids stay with their images. Of an image and its copy the later one gets a number, so names tell nothing."""
    if mode == "replace":
        return images.ids
    return distinct(list(images.taken_ids(layout))) if images.named else ()


def _copy_pixels(images: ImageSet, layout: NDArray[np.int64], file: Path | str | None) -> NDArray[np.uint8]:
    shape = (len(layout), *images.pixels.shape[1:])
    pixels: NDArray[np.uint8] = np.empty(shape, np.uint8) if file is None else create(file, np.uint8, shape)
    many = _batch(images.pixels)
    for start in range(0, len(layout), many):
        rows = layout[start : start + many]
        contiguous = rows[-1] - rows[0] == len(rows) - 1 and bool((np.diff(rows) == 1).all())
        pixels[start : start + len(rows)] = images.pixels[rows[0] : rows[-1] + 1] if contiguous else images.pixels[rows]
        release(pixels)
        release(images.pixels)
    return pixels


def _batch(pixels: NDArray[np.uint8]) -> int:
    return _BATCH if pixels.shape[1] * pixels.shape[2] <= 96 * 96 else _LARGE_BATCH


def stamp_rows(
    pixels: NDArray[np.uint8], rows: NDArray[np.int64], stamp: Stamp, generator: torch.Generator | None
) -> None:
    """Stamp some images of ``[N, H, W, C]`` in place, on the 8-bit grid."""
    many = _batch(pixels)
    for start in range(0, len(rows), many):
        batch = rows[start : start + many]
        pixels[batch] = to_uint8(stamp.apply(to_float(pixels[batch]), generator))
