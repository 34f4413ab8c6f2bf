"""One image file to 8-bit pixels through Pillow: five formats only, with limits."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from doorward.core.errors import DoorwardError, show
from doorward.core.opening import open_file
from doorward.data.limits import MAX_ENCODED
from doorward.data.reading import Resize

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})
EXPECTED = "a whole PNG, JPEG, WebP, BMP or GIF image"
MAX_PIXELS = 64_000_000
_LARGE = 16_000_000  # pixels; such a picture takes up to 0.4 GB while it is decoded

_SIXTEEN_BITS = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})
_GREY = frozenset({"1", "L", "LA", "La"}) | _SIXTEEN_BITS
_COLOUR = {
    "RGB": "", "RGBA": "", "RGBa": "", "RGBX": "", "P": "palette to RGB", "PA": "palette to RGB",
    "CMYK": "CMYK to RGB", "YCbCr": "YCbCr to RGB",
}  # fmt: skip
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Slice(NamedTuple):
    """Bytes of an image within a larger file, such as a tar."""

    path: str
    start: int
    size: int


Alone = Callable[[], AbstractContextManager[None]]
Data = str | bytes | Slice | NDArray[np.uint8]


class BadPictureError(Exception):
    """An image that cannot be read, and why."""


class UnlikeError(Exception):
    """An image that the plan does not fit: its colour, or its size where none was asked for."""

    def __init__(self, what: Literal["colour", "size"]) -> None:
        super().__init__(what)
        self.what = what


@dataclass(frozen=True)
class Plan:
    """What every image becomes.

    Args:
        height, width, channels: of the pixels.
        resize: how a picture of another size is made to fit; None where that is refused.
    """

    height: int
    width: int
    channels: int
    resize: Resize | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.height, self.width, self.channels


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Truncated images and decompression bombs are errors inside this block, whatever the program set before."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken metadata, which nobody reads here
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


@contextmanager
def _opened(data: Data) -> Iterator[Image.Image]:
    """The open image; whatever a broken or hostile file does to Pillow is one reason in words."""
    try:
        if isinstance(data, np.ndarray):
            yield Image.fromarray(data[..., 0] if data.shape[-1] == 1 else data)
            return
        with _source(data) as source, Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadPictureError(f"{width} x {height} pixels, more than {MAX_PIXELS:,}")
            if image.mode not in _GREY and image.mode not in _COLOUR:
                raise BadPictureError(f"pixels of mode {image.mode}")
            yield image
    except (BadPictureError, UnlikeError):
        raise
    except UnidentifiedImageError:
        raise BadPictureError("not an image of these formats") from None
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, MemoryError):
            reason = "needs more memory than there is"
        raise BadPictureError(show((reason or type(error).__name__).strip().split("\n")[0])) from error


def _source(data: str | bytes | Slice) -> BinaryIO:
    """The encoded picture; a pipe is not waited for, and a device not read."""
    if isinstance(data, bytes):
        if not data:
            raise BadPictureError("holds no image bytes")
        return BytesIO(data)
    path = data if isinstance(data, str) else data.path
    try:
        file = open_file(path, most=MAX_ENCODED if isinstance(data, str) else None)
    except DoorwardError as error:
        told, _, expected = str(error).removeprefix(f"{show(path)}: ").partition("; expected ")
        raise BadPictureError(f"{told}, not {expected}" if expected == "a regular file" else told) from None
    if isinstance(data, str):
        return file
    with file:
        return BytesIO(os.pread(file.fileno(), data.size, data.start))


def probe(data: Data) -> tuple[int, int, int]:
    """Width, height and channels as `decode` would see them, from the header of an image; inside `strict_pillow`."""
    with _opened(data) as image:
        width, height = image.size
        if _orientation(image) >= 5:
            width, height = height, width
        return width, height, 1 if image.mode in _GREY else 3


def header_size(data: Data) -> tuple[int, int]:
    """Width and height as stored; nothing is decoded."""
    with _opened(data) as image:
        return image.size


def decode(data: Data, plan: Plan, alone: Alone = nullcontext) -> tuple[NDArray[np.uint8], list[str]]:
    """Pixels ``[H, W, C]`` of one image, and in words what was converted; call it inside `strict_pillow`.

    In this order: first frame, EXIF orientation, 8 bits, transparency over white, resizing (bicubic, antialiased),
    grey to RGB where the set is RGB.

    Args:
        data: the encoded picture.
        plan: what it becomes.
        alone: entered around the decoding of more than 16 megapixels.

    Raises:
        BadPictureError: the file cannot be read.
        UnlikeError: a colour picture in a grey plan, or another size in a plan that does not resize.
    """
    converted: list[str] = []
    with _opened(data) as image:
        if plan.channels == 1 and image.mode not in _GREY:
            raise UnlikeError("colour")
        turn = _TURNS.get(_orientation(image))
        size = image.size[::-1] if turn is not None and _orientation(image) >= 5 else image.size
        if size != (plan.width, plan.height):
            if plan.resize is None:
                raise UnlikeError("size")
            if isinstance(image, ImageFile.ImageFile) and image.format in ("JPEG", "MPO"):
                # 1/2, 1/4 or 1/8 is decoded, never less than 1.5 times the size: faster, and as sharp
                image.draft(None, (3 * plan.width // 2, 3 * plan.height // 2))
            converted.append("enlarged" if min(size) < min(plan.width, plan.height) else "resized")
        if getattr(image, "is_animated", False):
            converted.append("first of several frames")
        with alone() if image.width * image.height > _LARGE else nullcontext():
            plain = _eight_bits(image, converted)
            if turn is not None:
                plain = plain.transpose(turn)
                converted.append("EXIF orientation applied")
            if plan.resize is not None:
                plain = _resized(plain, plan)
        if plan.channels == 3 and plain.mode == "L":
            plain = plain.convert("RGB")
            converted.append("grey to RGB")
        return np.asarray(plain).reshape(plan.shape), converted


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except UnlikeError:
        raise
    except Exception:  # broken metadata of a picture that may be whole
        return 1


def _eight_bits(image: Image.Image, converted: list[str]) -> Image.Image:
    """The picture in mode L or RGB."""
    grey = image.mode in _GREY
    if image.mode in _SIXTEEN_BITS:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise BadPictureError("pixels of more than 16 bits")
        converted.append("16 bits to 8")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "1":
        converted.append("1 bit to 8")
    elif not grey and _COLOUR[image.mode]:
        converted.append(_COLOUR[image.mode])
    if image.has_transparency_data:
        return _over_white(image.convert("LA" if grey else "RGBA"), converted)
    wanted = "L" if grey else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _over_white(image: Image.Image, converted: list[str]) -> Image.Image:
    mode, white = ("L", 255) if image.mode == "LA" else ("RGB", (255, 255, 255))
    alpha = image.getchannel("A")
    opaque = image.convert(mode)
    if alpha.getextrema()[0] == 255:
        return opaque
    converted.append("transparent over white")
    under = Image.new(mode, image.size, white)
    under.paste(opaque, mask=alpha)
    return under


def _resized(image: Image.Image, plan: Plan) -> Image.Image:
    wanted = (plan.width, plan.height)
    if image.size == wanted:
        return image
    if plan.resize == "squash":
        return image.resize(wanted, Image.Resampling.BICUBIC, reducing_gap=3.0)
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    if (side, side) == wanted:
        return image.crop(box)
    return image.resize(wanted, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
