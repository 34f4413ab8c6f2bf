"""NumPy ``.npz`` files, read as a stream: no pickle, no array held twice."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, NoSplitError, show
from doorward.core.ids import distinct
from doorward.core.images import ImageSet
from doorward.core.memmaps import release
from doorward.core.opening import open_file
from doorward.data.assemble import assemble
from doorward.data.cache import file_state
from doorward.data.checks import Split, guarded, name_labels
from doorward.data.limits import MAX_CLASSES, MAX_DEFLATE, MAX_IMAGES, MAX_PATH, MAX_TOGETHER
from doorward.data.readers.arrays import find_layout, rows_per_chunk, to_8_bit

_EXPECTED = "an .npz file with arrays 'images' and 'labels'"
_PAIRS = (("images", "labels"), ("x", "y"), ("data", "labels"), ("x_{split}", "y_{split}"))
_NAMES = ("classes", "class_names")
_MAX_HEADER = 10_000  # bytes, as NumPy has it; it reads the header before it looks


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
    with guarded(path, _EXPECTED), open_file(path) as raw, zipfile.ZipFile(raw) as archive:
        members = {Path(name).stem.lower(): name for name in archive.namelist() if name.endswith(".npy")}
        images, labels = _pick(members, split, path)
        names = next((members[n] for n in _NAMES if n in members), None)
        with archive.open(images) as file:
            header = _read_header(archive, images, file, path)
            count = header.shape[0] if header.shape else 0
            if count > MAX_IMAGES:
                raise DoorwardError(f"{show(path)}: {count:,} images; expected at most {MAX_IMAGES:,}")
            targets = _labels(archive, labels, count, path)
            classes = None if names is None else _texts(archive, names, "class names", MAX_CLASSES, path)
            ids = None if "ids" not in members else _texts(archive, members["ids"], "ids", count, path)
            found = _stream(path, file, header, targets, classes)
        return found if ids is None else replace(found, ids=distinct(ids))


def _labels(archive: zipfile.ZipFile, name: str, count: int, path: Path) -> NDArray[Any]:
    """The labels, whose number and size are looked at before they are read."""
    with archive.open(name) as file:
        header = _read_header(archive, name, file, path)
        if header.shape not in ((count,), (count, 1)):
            told = f"labels of shape {list(header.shape)} for {count} images"
            raise DoorwardError(f"{show(path)}: {told}; expected one label per image")
        if header.dtype.kind == "U":
            return np.array(list(_text_rows(file, header, path)), np.dtypes.StringDType())
        if header.dtype.itemsize > 8:
            raise DoorwardError(f"{show(path)}: labels of type {header.dtype}; expected integers or text")
        return _rest(file, header, path)


def _texts(archive: zipfile.ZipFile, name: str, what: str, most: int, path: Path) -> list[str]:
    with archive.open(name) as file:
        header = _read_header(archive, name, file, path)
        if len(header.shape) != 1 or header.dtype.kind != "U":
            raise DoorwardError(f"{show(path)}: {what} of type {header.dtype}; expected a list of text")
        if header.shape[0] > most:
            raise DoorwardError(f"{show(path)}: {header.shape[0]:,} {what}; expected at most {most:,}")
        return list(_text_rows(file, header, path))


def _text_rows(file: IO[bytes], header: _Header, path: Path) -> Iterator[str]:
    """Texts as long as they are: in the file all are padded to the longest."""
    if header.dtype.itemsize > 4 * MAX_PATH:
        told = f"text of {header.dtype.itemsize // 4:,} characters"
        raise DoorwardError(f"{show(path)}: {told}; expected at most {MAX_PATH:,}")
    size, step = header.dtype.itemsize, rows_per_chunk(header.dtype.itemsize)
    for start in range(0, header.shape[0], step):
        rows = min(step, header.shape[0] - start)
        raw = _take(file, rows * size, path)
        yield from np.frombuffer(raw, header.dtype).tolist() if size else [""] * rows


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
        if version == (2, 0) and int.from_bytes(cast("zipfile.ZipExtFile", file).peek(4)[:4], "little") > _MAX_HEADER:
            raise DoorwardError(f"{where}: a header of more than {_MAX_HEADER:,} bytes; expected fewer")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise DoorwardError(f"{where}: holds Python objects (a pickle), which are never read; expected numbers or text")
    info = archive.getinfo(name)
    promised, held = math.prod(shape) * dtype.itemsize, info.file_size - file.tell()
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DoorwardError(f"{where}: compressed by method {info.compress_type}; expected deflate, as NumPy writes")
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


def _rest(file: IO[bytes], header: _Header, path: Path) -> NDArray[Any]:
    size = math.prod(header.shape) * header.dtype.itemsize
    if size > MAX_TOGETHER:
        raise DoorwardError(f"{show(path)}: {size:,} bytes column by column; expected row by row, or {MAX_TOGETHER:,}")
    raw = _take(file, size, path)
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
