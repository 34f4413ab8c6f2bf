"""From encoded pictures of any size and mode to an image set; decoded once where there are many."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, show
from doorward.core.ids import Ids
from doorward.core.images import ImageSet
from doorward.core.memmaps import create, release
from doorward.core.progress import display
from doorward.data import assemble
from doorward.data.cache import cache_root, fingerprint, need_space, new_folder, touch_and_prune
from doorward.data.decoding import Outcome, decode_all, processes_for, rows_per_task
from doorward.data.readers.decode import (
    EXPECTED,
    BadPictureError,
    Data,
    Plan,
    UnlikeError,
    header_size,
    probe,
    strict_pillow,
)
from doorward.data.reading import Reading

_VERSION = 1  # of how pictures become pixels: a change of it has everything decoded again
_WORTH_KEEPING = 500  # pictures: from here on the pixels are kept on disk
_MEMORY_LIMIT = 32 * 2**20  # and from this many bytes on
_SHOWN = 10

Labels = NDArray[np.int64]
Bad = dict[int, str]


@dataclass(frozen=True)
class Pictures:
    """Encoded pictures with their labels.

    Args:
        where: the source, for messages.
        labels, classes: as in `ImageSet`.
        ids: what the pictures are called; empty for their numbers.
        items: the pictures in order, so many at a time; may be asked for again.
        state: what the pixels depend on, as a digest, and the bytes of all files.
        provenance: what the reader knows: ``root`` (the folder that ids are relative to), ``notes``.
        noun: before a number where pictures have no names.
    """

    where: object
    labels: Labels
    classes: Sequence[str]
    ids: Sequence[str]
    items: Callable[[int], Iterator[Sequence[Data]]]
    state: Callable[[], tuple[str, int]]
    provenance: dict[str, object] = field(default_factory=dict)
    noun: str = "row"

    def called(self, row: int) -> str:
        """A picture's name for messages."""
        return show(self.ids[row]) if len(self.ids) else f"{self.noun} {row}"


def read_pictures(pictures: Pictures, reading: Reading) -> ImageSet:
    """Decode pictures; many or large ones into the cache folder, where the same pictures are found the next time.

    Raises:
        DoorwardError: pictures that cannot be read (unless ``skip_bad``), of different sizes without a ``size``, a
            source that changes while it is read, no room on the disk.
    """
    reading.check(pictures.labels, pictures.classes, pictures.where)
    digest, size = pictures.state()
    labels = hashlib.sha256(pictures.labels.tobytes()).hexdigest()
    entry = cache_root() / "decoded" / fingerprint(
        "pictures", _VERSION, digest, labels, list(pictures.classes), reading.size, reading.resize
    )  # fmt: skip
    if not entry.is_dir():
        found = _decoded(pictures, entry, (digest, size), reading)
        if found is not None:
            return found
    touch_and_prune(entry)
    found = ImageSet.load(entry)
    told: dict[str, object] = {
        key: found.provenance[key] for key in ("converted", "skipped") if key in found.provenance
    }
    if "skipped" in told and not reading.skip_bad:
        raise _refusal(pictures, dict(told["skipped"]))  # type: ignore[call-overload]
    return replace(found, provenance={**pictures.provenance, **told})


def _decoded(pictures: Pictures, entry: Path, state: tuple[str, int], reading: Reading) -> ImageSet | None:
    """The set in memory, or None when it was written to ``entry``."""
    plan = _plan(pictures, reading)
    try:
        return _place(pictures, plan, entry, state, reading)
    except UnlikeError as error:
        what = error.what
    if what == "colour":  # grey so far, and now a colour: from the beginning
        try:
            return _place(pictures, replace(plan, channels=3), entry, state, reading)
        except UnlikeError:
            pass
    raise _mixed(pictures)


def _plan(pictures: Pictures, reading: Reading) -> Plan:
    """What every picture becomes, from the first one that can be read."""
    bad: Bad = {}
    with strict_pillow():
        for items in pictures.items(64):
            for data in items:
                try:
                    width, height, channels = probe(data)
                except BadPictureError as error:
                    bad[len(bad)] = str(error)
                    continue
                if reading.size:
                    return Plan(reading.size, reading.size, channels, reading.resize)
                return Plan(height, width, channels, None)
    raise _refusal(pictures, {pictures.called(row): why for row, why in bad.items()})


def _place(pictures: Pictures, plan: Plan, entry: Path, state: tuple[str, int], reading: Reading) -> ImageSet | None:
    count = len(pictures.labels)
    shape = (count, *plan.shape)
    room = int(np.prod(shape))
    chunks = pictures.items(rows_per_task(plan))
    if count < _WORTH_KEEPING and room <= min(_MEMORY_LIMIT, assemble.MEMORY_LIMIT):
        pixels = np.empty(shape, np.uint8)
        outcome = decode_all(chunks, count, plan, pixels)
        return _set(pictures, pixels, outcome, state, reading)
    need_space(entry.parent, room, pictures.where)
    with new_folder(entry) as folder:
        file = folder / "images.npy"
        create(file, np.uint8, shape).flush()
        outcome = decode_all(chunks, count, plan, file, processes_for(count, state[1]))
        pixels = np.lib.format.open_memmap(file, mode="r+")
        if outcome.bad and reading.skip_bad:
            pixels = _without(pixels, outcome.bad, file)
        _set(pictures, pixels, outcome, state, reading, compact=True).save(folder)
    return None


def _set(
    pictures: Pictures,
    pixels: NDArray[np.uint8],
    outcome: Outcome,
    state: tuple[str, int],
    reading: Reading,
    compact: bool = False,
) -> ImageSet:
    """The set of what was decoded, without what could not be read; ``compact``: the pixels are without it already."""
    if pictures.state() != state:
        raise DoorwardError(f"{show(pictures.where)}: changed while it was read; expected files that stay as they are")
    provenance, labels, ids = dict(pictures.provenance), pictures.labels, pictures.ids
    if outcome.converted:
        before = provenance.get("converted")
        converted = {**(before if isinstance(before, dict) else {}), **dict(sorted(outcome.converted.items()))}
        provenance["converted"] = converted
    if outcome.bad:
        skipped = {pictures.called(row): why for row, why in sorted(outcome.bad.items())}
        if not reading.skip_bad:
            raise _refusal(pictures, skipped)
        kept = np.setdiff1d(np.arange(len(labels)), list(outcome.bad))
        if not len(kept):
            raise _refusal(pictures, skipped)
        reading.check(labels[kept], pictures.classes, f"{show(pictures.where)}, without {len(skipped)} bad files")
        provenance["skipped"] = skipped
        names = Ids(ids) if len(ids) else Ids(len(labels))
        labels, ids = labels[kept], names.take(kept)
        pixels = pixels if compact else pixels[kept]
    return ImageSet(pixels, labels, tuple(pictures.classes), show(pictures.where), provenance, ids)


def _without(pixels: NDArray[np.uint8], bad: Bad, file: Path) -> NDArray[np.uint8]:
    """The file without the rows that could not be read."""
    kept = np.setdiff1d(np.arange(len(pixels)), list(bad))
    if not len(kept):
        return pixels
    smaller = create(file.with_name("kept.npy"), np.uint8, (len(kept), *pixels.shape[1:]))
    step = max(1, 2**24 // pixels[0].nbytes)
    for start in range(0, len(kept), step):
        smaller[start : start + step] = pixels[kept[start : start + step]]
        release(smaller)
        release(pixels)
    smaller.flush()
    file.with_name("kept.npy").replace(file)
    return np.lib.format.open_memmap(file, mode="r+")


def _refusal(pictures: Pictures, bad: dict[str, str]) -> DoorwardError:
    """One line about the pictures that cannot be read."""
    hint = "--skip-bad, or skip_bad=True, leaves such files out"
    if len(bad) == 1:
        ((name, why),) = bad.items()
        return DoorwardError(f"{show(pictures.where)}: {show(name)}: {why}; expected {EXPECTED} ({hint})")
    listed = ", ".join(f"{show(name)} ({why})" for name, why in list(bad.items())[:_SHOWN])
    more = f" and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
    return DoorwardError(
        f"{show(pictures.where)}: {len(bad):,} files cannot be read: {listed}{more}; expected {EXPECTED} each ({hint})"
    )


def _mixed(pictures: Pictures) -> DoorwardError:
    """One line about sizes that differ: the smallest and the largest."""
    sizes: dict[tuple[int, int], int] = {}
    row = 0
    with strict_pillow(), display() as progress:
        for items in pictures.items(512):
            for data in items:
                with suppress(BadPictureError):  # told when they are decoded
                    sizes.setdefault(header_size(data), row)
                row += 1
            progress("looking at sizes", row, len(pictures.labels))
    small, large = (f"{w} x {h} ({pictures.called(sizes[w, h])})" for w, h in (f(sizes, key=_area) for f in (min, max)))
    return DoorwardError(
        f"{show(pictures.where)}: pictures of {len(sizes):,} sizes, from {small} to {large}; expected one size, "
        "or --size N (size=N) to make them N x N"
    )


def _area(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] * size[1], size[0]


def resized(images: ImageSet, reading: Reading) -> ImageSet:
    """A set whose pixels are there already, in the size that was asked for."""

    def items(many: int) -> Iterator[Sequence[Data]]:
        for rows in images.chunks(many):
            yield list(np.asarray(images.pixels[rows]))
            release(images.pixels)

    pictures = Pictures(
        images.name, images.labels, images.classes, images.ids, items, lambda: (images.hash, images.pixels.nbytes),
        images.provenance, "image",
    )  # fmt: skip
    found = read_pictures(pictures, reading)
    return images.fitted(pixels=found.pixels, provenance=found.provenance)


def files_state(root: Path | str, names: Sequence[str]) -> tuple[str, int]:
    """A digest of what changes when a file does, and the bytes of all; see `cache.file_state`."""
    digest, size = hashlib.sha256(os.fsencode(root)), 0
    for name in names:
        s = os.stat(f"{root}/{name}")  # noqa: PTH116 (a Path costs more than the call)
        digest.update(f"{name}\0{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}\0".encode("utf-8", "surrogatepass"))
        size += s.st_size
    return digest.hexdigest(), size
