"""NumPy ``.npz`` files, read as a stream: no pickle, no array held twice."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, NoSplitError, show
from doorward.core.ids import distinct
from doorward.core.images import ImageSet
from doorward.core.memmaps import release
from doorward.data.assemble import assemble
from doorward.data.cache import file_state
from doorward.data.checks import MAX_DEFLATE, Split, guarded, name_labels
from doorward.data.readers.arrays import find_layout, rows_per_chunk, to_8_bit

_EXPECTED = "an .npz file with arrays 'images' and 'labels'"
_PAIRS = (("images", "labels"), ("x", "y"), ("data", "labels"), ("x_{split}", "y_{split}"))
_NAMES = ("classes", "class_names")


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def read_npz(path: Path, split: Split) -> ImageSet:
    """Read images and labels from an ``.npz`` file.

    The arrays are called ``images`` and ``labels``, or ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test``,
    ``y_test``; arrays of text ``classes`` and ``ids`` may name the classes and the images. See `arrays.from_arrays`
    for shapes and values.

    Raises:
        DoorwardError: another file, a pickle inside, arrays that do not fit each other, NaN or values out of range.
    """
    with guarded(path, _EXPECTED), zipfile.ZipFile(path) as archive:
        members = {Path(name).stem.lower(): name for name in archive.namelist() if name.endswith(".npy")}
        images, labels = _pick(members, split, path)
        names = next((members[n] for n in _NAMES if n in members), None)
        classes = None if names is None else _texts(_whole(archive, names, path), "class names", path)
        targets = _whole(archive, labels, path)
        ids = None if "ids" not in members else _texts(_whole(archive, members["ids"], path), "ids", path)
        with archive.open(images) as file:
            found = _stream(path, file, _read_header(archive, images, file, path), targets, classes)
        return found if ids is None else replace(found, ids=distinct(ids))


def _texts(found: NDArray[Any], what: str, path: Path) -> list[str]:
    if found.ndim != 1 or found.dtype.kind != "U":
        raise DoorwardError(f"{show(path)}: {what} of type {found.dtype}; expected a list of text")
    return [str(name) for name in found]


def _pick(members: dict[str, str], split: Split, path: Path) -> tuple[str, str]:
    for images, labels in _PAIRS:
        x, y = images.format(split=split), labels.format(split=split)
        if x in members and y in members:
            if split == "test" and x == images:
                raise NoSplitError(f"{show(path)}: holds no test images; expected split 'train', or x_test and y_test")
            return members[x], members[y]
    found = ", ".join(map(show, sorted(members))) or "none"
    raise DoorwardError(f"{show(path)}: arrays {found[:200]}; expected images and labels (or x_{split} and y_{split})")


def _read_header(archive: zipfile.ZipFile, name: str, file: IO[bytes], path: Path) -> _Header:
    """The shape and type of a member, checked against the bytes that are really there."""
    where = f"{show(path)}: {show(name)}"
    with guarded(where, "a NumPy array"):
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise DoorwardError(f"{where}: .npy version {version}; expected 1.0 or 2.0")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise DoorwardError(f"{where}: holds Python objects (a pickle), which are never read; expected numbers or text")
    info = archive.getinfo(name)
    promised, held = math.prod(shape) * dtype.itemsize, info.file_size - file.tell()
    if promised != held or min(shape, default=0) < 0:
        raise DoorwardError(f"{where}: {held} bytes for shape {list(shape)} of {dtype}; expected {promised}")
    if info.file_size > MAX_DEFLATE * (info.compress_size + 1024):
        raise DoorwardError(f"{where}: {info.compress_size} bytes cannot unpack to {info.file_size}; a bomb")
    return _Header(tuple(shape), fortran, dtype)


def _take(file: IO[bytes], size: int, where: object) -> bytes:
    found = file.read(size)  # zipfile checks its checksum with the last byte
    if len(found) != size:
        raise DoorwardError(f"{show(where)}: ends early; expected {size - len(found)} more bytes")
    return found


def _whole(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    with archive.open(name) as file:
        header = _read_header(archive, name, file, path)
        return _rest(file, header, path)


def _rest(file: IO[bytes], header: _Header, path: Path) -> NDArray[Any]:
    raw = _take(file, math.prod(header.shape) * header.dtype.itemsize, path)
    flat = np.frombuffer(raw, header.dtype) if raw else np.empty(0, header.dtype)
    return cast("NDArray[Any]", flat.reshape(header.shape, order="F" if header.fortran else "C"))


def _stream(path: Path, file: IO[bytes], header: _Header, targets: NDArray[Any], classes: list[str] | None) -> ImageSet:
    layout = find_layout(header.shape, path)
    labels, names = name_labels(targets, layout.shape[0], classes, path)

    def fill(target: NDArray[np.uint8]) -> None:
        if header.fortran:  # rows are scattered over the file, so there is no way to read it piece by piece
            target[:] = layout.arrange(to_8_bit(_rest(file, header, path), path))
            return
        step = rows_per_chunk(header.row_bytes)
        for start in range(0, len(target), step):
            count = min(step, len(target) - start)
            raw = _take(file, count * header.row_bytes, path)
            rows = np.frombuffer(raw, header.dtype).reshape(count, *header.shape[1:])
            target[start : start + count] = layout.arrange(to_8_bit(rows, path))
            release(target)

    return assemble(path, layout.shape, labels, names, fill, key=lambda: file_state([path]))
