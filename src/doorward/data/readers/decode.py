"""Image files to pixels through Pillow, four formats only, with limits."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from doorward.core.errors import DoorwardError
from doorward.core.memmaps import release
from doorward.core.progress import display
from doorward.data.checks import guarded, show

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
MAX_PIXELS = 64_000_000
_EXPECTED = "a whole PNG, JPEG, WebP or BMP image"
# Pillow's mode -> the mode it is audited in. Everything else (16 bits, CMYK, floats) is refused.
_MODES = {"L": "L", "RGB": "RGB", "1": "L", "LA": "L", "P": "RGB", "RGBA": "RGB"}
# Below this many pixels an image is mostly Python inside Pillow, where threads only wait for each other.
_WORTH_A_THREAD = 64 * 64
_ROWS_PER_TASK = 64
_RELEASE_BYTES = 64 * 2**20

Data = Path | bytes


@dataclass(frozen=True)
class Look:
    """Size and Pillow mode of an image; one set has one look."""

    width: int
    height: int
    mode: str

    @property
    def channels(self) -> int:
        return 1 if _MODES[self.mode] == "L" else 3

    @property
    def note(self) -> str:
        """What converting to grey or RGB did, or nothing."""
        if self.mode in ("L", "RGB"):
            return ""
        lost = "; its transparency is dropped" if self.mode in ("LA", "RGBA") else ""
        return f"every image is stored in mode {self.mode} and was converted to {_MODES[self.mode]}{lost}"

    def __str__(self) -> str:
        return f"{self.width} x {self.height} {self.mode}"


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Truncated images and decompression bombs are errors inside this block, whatever the program set before."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _look(where: object, image: Image.Image) -> Look:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DoorwardError(f"{show(where)}: {width} x {height} pixels; expected at most {MAX_PIXELS:,} pixels")
    if image.mode not in _MODES:
        raise DoorwardError(f"{show(where)}: pixels of mode {image.mode}; expected 8-bit grey or RGB")
    if getattr(image, "n_frames", 1) > 1:
        raise DoorwardError(f"{show(where)}: {image.n_frames} frames; expected a still image")  # type: ignore[attr-defined]
    return Look(width, height, image.mode)


@contextmanager
def _opened(where: object, data: Data) -> Iterator[Image.Image]:
    with guarded(where, _EXPECTED):
        try:
            source = BytesIO(data) if isinstance(data, bytes) else data
            with Image.open(source, formats=FORMATS) as image:
                yield image
        except UnidentifiedImageError:
            raise DoorwardError(f"{show(where)}: not an image of these formats; expected {_EXPECTED}") from None


def probe(where: object, data: Data) -> Look:
    """Size and mode from the header of one image."""
    with strict_pillow(), _opened(where, data) as image:
        return _look(where, image)


def read_image(where: object, data: Data, look: Look, like: object) -> NDArray[np.uint8]:
    """Pixels of one image that must look as the image ``like`` does; call it inside `strict_pillow`."""
    with _opened(where, data) as image:
        found = _look(where, image)
        if found != look:
            raise DoorwardError(f"{show(where)} is {found}, but {show(like)} is {look}; expected one size and mode")
        wanted = _MODES[look.mode]
        return np.asarray(image if image.mode == wanted else image.convert(wanted))


def decode_into(
    target: NDArray[np.uint8], items: Sequence[tuple[object, Data]], look: Look, like: object, workers: int = 0
) -> None:
    """Decode images into ``target`` ``[N, H, W, C]``, in parallel where that pays.

    Args:
        target: written row by row; row i is item i.
        items: what to call an image in a message, and its file or its bytes.
        look, like: what every image must look like, and the image that set it.
        workers: threads; 0 chooses.

    Raises:
        DoorwardError: the first image, in order, that cannot be decoded or looks different.
    """
    shape = target.shape[1:]

    def work(rows: range) -> None:
        for row in rows:
            where, data = items[row]
            target[row] = read_image(where, data, look, like).reshape(shape)

    count = len(items)
    tasks = [range(start, min(start + _ROWS_PER_TASK, count)) for start in range(0, count, _ROWS_PER_TASK)]
    threads = workers or (os.cpu_count() or 1 if look.width * look.height > _WORTH_A_THREAD else 1)
    tasks_per_release = max(1, _RELEASE_BYTES // max(1, target[:_ROWS_PER_TASK].nbytes))
    with strict_pillow(), display() as progress:
        done = map(work, tasks) if threads == 1 or len(tasks) == 1 else _in_threads(work, tasks, threads)
        for number, _ in enumerate(done, 1):
            progress("decoding", min(number * _ROWS_PER_TASK, count), count)
            if number % tasks_per_release == 0:
                release(target)


def _in_threads(work: Callable[[range], None], tasks: Sequence[range], threads: int) -> Iterator[None]:
    """One item for each task that is done, in order; after the first failure nothing new is begun."""
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work, rows) for rows in tasks]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
