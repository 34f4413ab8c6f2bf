"""Where decoded pixels go: memory for a small set, a memory map in the cache folder for a large one."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import show
from doorward.core.images import ImageSet
from doorward.core.memmaps import create
from doorward.data.cache import cache_root, fingerprint, need_space, new_folder, touch_and_prune
from doorward.data.checks import check_auditable

MEMORY_LIMIT = 512 * 2**20

Shape = tuple[int, int, int, int]
Labels = NDArray[np.int64]
Fill = Callable[[NDArray[np.uint8]], None]
FillAndLabel = Callable[[NDArray[np.uint8]], tuple[Labels, Sequence[str]]]


def assemble(
    where: object,
    shape: Shape,
    labels: Labels,
    classes: Sequence[str],
    fill: Fill,
    *,
    key: Callable[[], object] | None = None,
    notes: Sequence[str] = (),
) -> ImageSet:
    """Check a set, have its pixels written once, and return it.

    Args:
        where: the source, for messages.
        shape: images, height, width, channels.
        labels, classes: as in `ImageSet`.
        fill: writes every pixel of the array ``[N, H, W, C]`` that it is given.
        key: what the pixels depend on; a large set that was decoded before from the same is opened, not made again.
        notes: what the reader left out or converted.

    Raises:
        DoorwardError: a set that cannot be audited, or no room for it on the disk.
    """
    check_auditable(labels, classes, where)

    def fill_and_label(target: NDArray[np.uint8]) -> tuple[Labels, Sequence[str]]:
        fill(target)
        return labels, classes

    def name() -> str:
        return fingerprint(key(), shape, list(classes), labels.tolist(), list(notes)) if key else secrets.token_hex(16)

    return _place(where, shape, fill_and_label, name, notes)


def assemble_late(where: object, shape: Shape, fill: FillAndLabel) -> ImageSet:
    """`assemble` for a source whose labels are known only once its images were read: ``fill`` returns them."""

    def checked(target: NDArray[np.uint8]) -> tuple[Labels, Sequence[str]]:
        labels, classes = fill(target)
        check_auditable(labels, classes, where)
        return labels, classes

    return _place(where, shape, checked, lambda: secrets.token_hex(16), ())


def _place(
    where: object, shape: Shape, fill: FillAndLabel, entry_name: Callable[[], str], notes: Sequence[str]
) -> ImageSet:
    provenance: dict[str, object] = {"notes": list(notes)} if notes else {}
    size = math.prod(shape)
    if size <= MEMORY_LIMIT:
        pixels = np.empty(shape, np.uint8)
        labels, classes = fill(pixels)
        return ImageSet(pixels, labels, tuple(classes), show(where), provenance)
    entry = cache_root() / "decoded" / entry_name()
    if not entry.is_dir():
        need_space(entry.parent, size, where)
        with new_folder(entry) as folder:
            mapped = create(folder / "images.npy", np.uint8, shape)
            labels, classes = fill(mapped)
            mapped.flush()
            ImageSet(mapped, labels, tuple(classes), show(where), provenance).save(folder)
    touch_and_prune(entry)
    return ImageSet.load(entry)
