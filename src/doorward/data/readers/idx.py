"""The IDX files of MNIST and its relatives, plain or gzip-compressed."""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, show
from doorward.core.images import ImageSet
from doorward.core.memmaps import release
from doorward.core.opening import open_file
from doorward.data.assemble import assemble
from doorward.data.cache import file_state
from doorward.data.checks import Split, guarded, name_labels
from doorward.data.limits import MAX_DEFLATE, MAX_IMAGES

_NAME = re.compile(r"(?P<set>.*?)(?P<split>train|t10k|test)[-_.](?P<what>images|labels)[-_.]idx[13][-_.]ubyte(\.gz)?")
_SPLITS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("t10k", "test")}
_CHUNK = 16 * 2**20


def find_idx(names: Sequence[str], split: Split) -> tuple[str, str] | None:
    """The names of the image file and the label file of a split, when a folder holds both."""
    found = {m["what"]: name for name in sorted(names) if (m := _NAME.fullmatch(name)) and m["split"] in _SPLITS[split]}
    return (found["images"], found["labels"]) if len(found) == 2 else None


def is_idx(name: str) -> bool:
    """True for the name of an IDX file."""
    return _NAME.fullmatch(name) is not None


def read_idx(images: Path, labels: Path, names: Sequence[str] | None = None) -> ImageSet:
    """Read a pair of IDX files (LeCun's format: big-endian magic number and sizes, then bytes).

    Args:
        images: magic 0x00000803, then N, H, W, then N H W bytes.
        labels: magic 0x00000801, then N, then N bytes.
        names: class names; without them class k is called ``"k"``.

    Raises:
        DoorwardError: another magic number, sizes that the file does not hold, different N in the two files.
    """
    with _opened(images, 3) as (file, (found, height, width)):
        with _opened(labels, 1) as (label_file, (count,)):
            if found != count:
                raise DoorwardError(f"{show(images)}: {found} images, but {show(labels)} has {count} labels")
            if count > MAX_IMAGES:
                raise DoorwardError(f"{show(images)}: {count:,} images; expected at most {MAX_IMAGES:,}")
            targets = np.frombuffer(_take(label_file, count, labels), np.uint8)
            _expect_end(label_file, labels)
        numbers, classes = name_labels(targets, count, names, labels)

        def fill(target: NDArray[np.uint8]) -> None:
            step = max(1, _CHUNK // (height * width))
            for start in range(0, count, step):
                rows = min(step, count - start)
                raw = _take(file, rows * height * width, images)
                target[start : start + rows] = np.frombuffer(raw, np.uint8).reshape(rows, height, width, 1)
                release(target)
            _expect_end(file, images)

        if height == 0 or width == 0:
            raise DoorwardError(f"{show(images)}: images of size {width} x {height}; expected at least 1 x 1")
        shape = (count, height, width, 1)
        return assemble(images, shape, numbers, classes, fill, key=lambda: file_state([images, labels]))


@contextmanager
def _opened(path: Path, dimensions: int) -> Iterator[tuple[IO[bytes], tuple[int, ...]]]:
    """The file after its header, and the sizes that the header tells."""
    packed = path.suffix == ".gz"
    with (
        guarded(path, "an IDX file of bytes, whole"),
        open_file(path) as raw,
        cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if packed else raw as file,
    ):
        held = os.fstat(raw.fileno()).st_size
        magic = _take(file, 4, path)
        if magic != bytes((0, 0, 8, dimensions)):
            raise DoorwardError(f"{show(path)}: begins with {magic.hex()}; expected 000008{dimensions:02d} (IDX)")
        sizes = struct.unpack(f">{dimensions}I", _take(file, 4 * dimensions, path))
        promised = math.prod(sizes) + 4 + 4 * dimensions
        if promised > held * (MAX_DEFLATE if packed else 1):
            raise DoorwardError(f"{show(path)}: {held} bytes for sizes {list(sizes)}; expected {promised}")
        yield file, sizes


def _take(file: IO[bytes], size: int, path: Path) -> bytes:
    found = file.read(size)
    if len(found) != size:
        raise DoorwardError(f"{show(path)}: ends early; expected {size - len(found)} more bytes")
    return found


def _expect_end(file: IO[bytes], path: Path) -> None:
    if file.read(1):
        raise DoorwardError(f"{show(path)}: goes on after its last image or label; expected its end")
