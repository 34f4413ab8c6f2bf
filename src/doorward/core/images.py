"""`ImageSet`: labelled images on the 8-bit grid, in memory or memory-mapped."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError
from doorward.core.files import write_array, write_json
from doorward.core.ids import Ids
from doorward.core.memmaps import create, open_array, release
from doorward.core.opening import read_json
from doorward.core.progress import printable

_ROWS_PER_CHUNK = 4096
_BYTES_PER_CHUNK = 64 * 2**20
_ORIGIN = "fitted_from"  # in the provenance


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images.

    Args:
        pixels: uint8 ``[N, H, W, C]`` with C = 1 (grey) or 3 (RGB); a memory map when large.
        labels: int64 ``[N]``, each in ``0..K-1``.
        classes: K class names, at least two.
        name: what to call the set in tables and reports.
        provenance: where the set comes from, what was converted and left out; of the set as it was read.
        ids: what each image is called: a file's path inside the source, the key of a table's row; without them the
            index as text. They are no part of the hash.

    Raises:
        DoorwardError: shapes, types or labels that do not fit each other.

    Floats in [0, 1] are made on the device, batch by batch (`doorward.core.classifier.to_float`).
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    name: str = "images"
    provenance: dict[str, object] = field(default_factory=dict)
    ids: Sequence[str] = ()

    def __post_init__(self) -> None:
        def expect(condition: bool, value: object, expected: str) -> None:
            if not condition:
                raise DoorwardError(f"{self.name}: {value}; expected {expected}")

        expect(self.pixels.dtype == np.uint8, f"pixels of type {self.pixels.dtype}", "uint8")
        shape = self.pixels.shape
        expect(self.pixels.ndim == 4, f"pixels of shape {list(shape)}", "[images, height, width, channels]")
        expect(shape[3] in (1, 3), f"{shape[3]} channels", "1 (grey) or 3 (RGB)")
        expect(shape[0] > 0, "no images", "at least one image")
        expect(shape[1] > 0 and shape[2] > 0, f"images of size {shape[1]} x {shape[2]}", "at least 1 x 1")
        expect(self.labels.shape == (shape[0],), f"{self.labels.shape} labels", f"[{shape[0]}], one per image")
        expect(self.labels.dtype == np.int64, f"labels of type {self.labels.dtype}", "int64")
        expect(len(self.classes) >= 2, f"{len(self.classes)} class name(s)", "at least two classes")
        low, high = int(self.labels.min()), int(self.labels.max())
        expect(low >= 0, f"label {low}", "labels of 0 or more")
        expect(
            high < len(self.classes),
            f"label {high}",
            f"labels below {len(self.classes)}, the number of classes",
        )
        if not isinstance(self.ids, Ids):
            object.__setattr__(self, "ids", Ids(self.ids if len(self.ids) else shape[0]))
        expect(len(self.ids) == shape[0], f"{len(self.ids)} ids", f"{shape[0]}, one per image")

    def __len__(self) -> int:
        return int(self.pixels.shape[0])

    def __repr__(self) -> str:
        told = f"ImageSet {self.name}: {len(self):,} images of {'x'.join(map(str, self.shape))}"
        return printable(f"{told}, {few(self.classes)}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of one image."""
        _, height, width, channels = self.pixels.shape
        return channels, height, width

    @cached_property
    def hash(self) -> str:
        """SHA-256 over shape, pixels, labels and class names: equal sets have equal hashes."""
        digest = hashlib.sha256()
        digest.update(json.dumps([list(self.pixels.shape), list(self.classes)]).encode())
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        for rows in self.chunks():
            digest.update(np.ascontiguousarray(self.pixels[rows]).data)
            release(self.pixels)
        return digest.hexdigest()

    @property
    def hashes(self) -> frozenset[str]:
        """`hash`, and that of the set before its pictures and labels were fitted to a model, where they were."""
        return frozenset({self.hash, self.origin})

    @property
    def origin(self) -> str:
        """`hash` of the set before it was fitted to a model; its own where it was not."""
        return str(self.provenance.get(_ORIGIN, "")) or self.hash

    def fitted(self, **changes: Any) -> ImageSet:
        """The same images, row by row, with other pixels, labels or classes; `origin` stays."""
        provenance = {**changes.pop("provenance", self.provenance), _ORIGIN: self.origin}
        return replace(self, **changes, provenance=provenance)

    def chunks(self, rows: int | None = None) -> Iterator[slice]:
        """Slices that cover the set, so that a memory map is read a piece at a time."""
        rows = rows or max(1, min(_ROWS_PER_CHUNK, _BYTES_PER_CHUNK // math.prod(self.shape)))
        for start in range(0, len(self), rows):
            yield slice(start, min(start + rows, len(self)))

    def image_id(self, index: int) -> str:
        """What image number ``index`` is called."""
        return self.ids[index]

    @property
    def named(self) -> bool:
        """Whether the ids are more than the numbers ``0..N-1``."""
        return not (isinstance(self.ids, Ids) and self.ids.plain)

    def taken_ids(self, rows: NDArray[np.int64]) -> Ids:
        """The ids of these rows, for a set that is made of them."""
        assert isinstance(self.ids, Ids)
        return self.ids.take(rows)

    def counts(self) -> NDArray[np.int64]:
        """Images per class, ``[K]``."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)

    def subset(self, which: NDArray[np.bool_] | NDArray[np.int64], name: str | None = None) -> ImageSet:
        """The images picked by a mask ``[N]`` or by indices, in that order."""
        rows = np.flatnonzero(which) if which.dtype == np.bool_ else np.asarray(which, np.int64)
        if len(rows) == 0:
            raise DoorwardError(f"{self.name}: a subset of no images; expected at least one")
        ids, provenance = self.taken_ids(rows), {k: v for k, v in self.provenance.items() if k != _ORIGIN}
        pixels, labels = self.pixels[rows], self.labels[rows]
        return replace(self, pixels=pixels, labels=labels, name=name or self.name, provenance=provenance, ids=ids)

    def coloured(self) -> ImageSet:
        """The same grey pictures over three channels, as a colour net wants them; colour pictures stay as they are."""
        if self.shape[0] != 1:
            return self
        before = self.provenance.get("converted")
        converted = {**(before if isinstance(before, dict) else {}), "grey to RGB": len(self)}
        provenance = {**self.provenance, "converted": converted}
        return self.fitted(pixels=np.repeat(self.pixels, 3, axis=3), provenance=provenance)

    def split(self, held_out: float, seed: int) -> tuple[ImageSet, ImageSet]:
        """Two disjoint sets; the second holds the share ``held_out`` of every class, drawn by ``seed``."""
        rng = np.random.default_rng(seed)
        second = np.zeros(len(self), dtype=bool)
        for label in range(len(self.classes)):
            members = np.flatnonzero(self.labels == label)
            second[rng.permutation(members)[: round(held_out * len(members))]] = True
        return self.subset(~second, f"{self.name}-train"), self.subset(second, f"{self.name}-test")

    def portion(self, share: float, seed: int) -> ImageSet:
        """A share of every class, drawn by ``seed``; at least one image of each."""
        if share == 1:
            return self
        rng, rows = np.random.default_rng(seed), []
        for label in np.unique(self.labels):
            members = np.flatnonzero(self.labels == label)
            rows.append(rng.permutation(members)[: max(1, round(share * len(members)))])
        return self.subset(np.sort(np.concatenate(rows)), f"{self.name}, {100 * share:g} %")

    def save(self, folder: Path | str) -> None:
        """Write ``images.npy``, ``labels.npy``, ``images.json`` and, where images have names, ``ids.jsonl``."""
        folder = Path(folder)
        path = folder / "images.npy"
        held = getattr(self.pixels, "filename", None)
        if held is None or not path.exists() or not path.samefile(held):  # a set made in place is there already
            target = create(path, np.uint8, self.pixels.shape)
            for rows in self.chunks():
                target[rows] = self.pixels[rows]
                release(target)
                release(self.pixels)
            target.flush()
        write_array(folder / "labels.npy", self.labels)
        assert isinstance(self.ids, Ids)
        self.ids.save(folder / "ids.jsonl")
        about = {
            "name": self.name,
            "classes": list(self.classes),
            "sha256": self.hash,
            "provenance": self.provenance,
        }
        write_json(folder / "images.json", about)

    @classmethod
    def load(cls, folder: Path | str) -> ImageSet:
        """Open a set that `save` wrote; the pixels stay on disk (memory-mapped)."""
        folder = Path(folder)
        try:
            about = read_json(folder / "images.json", inside=folder)
            # open_array, not np.load: it takes the .npy format alone, never a zip file or a pickle
            pixels = open_array(folder / "images.npy", inside=folder)
            held = open_array(folder / "labels.npy", inside=folder)
            if held.shape != pixels.shape[:1] or held.dtype != np.int64:
                raise ValueError(f"labels of shape {held.shape} and type {held.dtype} for {len(pixels)} images")
            labels = np.array(held)
            classes, name = tuple(map(str, about["classes"])), str(about["name"])
            provenance = dict(about.get("provenance", {}))
            ids = Ids.load(folder / "ids.jsonl", len(labels))
        except DoorwardError:
            raise
        except Exception as error:  # whatever NumPy and json meet in files that anyone may have written
            reason = ascii(str(error).split("\n")[0])[1:-1]
            raise DoorwardError(
                f"{folder}: not a complete image set ({reason}); expected images.npy, labels.npy, images.json"
            ) from None
        return cls(pixels, labels, classes, name, provenance, ids)


def few(classes: Sequence[str], most: int = 6) -> str:
    """``10 classes: 0, 1, 2, 3, 4, 5, ...``."""
    shown = ", ".join(name[:40] for name in classes[:most])
    return f"{len(classes)} classes: {shown}{', ...' if len(classes) > most else ''}"


def class_number(given: str | int, classes: Sequence[str], what: str = "class") -> int:
    """A class by its name or number; text that is both, such as a digit's, is taken for the name.

    Raises:
        DoorwardError: ``what``, the value, and the names and numbers there are.
    """
    if isinstance(given, str) and given in classes:
        return list(classes).index(given)
    if isinstance(given, int | np.integer) and not isinstance(given, bool) and 0 <= given < len(classes):
        return int(given)
    if isinstance(given, str) and given.isdecimal() and int(given) < len(classes):
        return int(given)
    shown = ", ".join(classes[:12])
    raise DoorwardError(f"{what} {given!r}; expected one of {shown} or 0..{len(classes) - 1}")
