"""Arrays and tensors to 8-bit image sets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, show
from doorward.core.images import ImageSet
from doorward.core.memmaps import release
from doorward.data.assemble import Shape, assemble
from doorward.data.checks import check_auditable, name_labels

_CHUNK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Layout:
    """How an array's axes become images, height, width, channels."""

    shape: Shape
    axes: tuple[int, ...]

    def arrange(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows of the source as ``[n, H, W, C]``."""
        return rows[..., None] if len(self.axes) == 3 else rows.transpose(self.axes)


def find_layout(shape: tuple[int, ...], where: object, channels_first: bool = False) -> Layout:
    """Read ``[N, H, W]``, ``[N, H, W, C]`` or ``[N, C, H, W]`` from a shape; C is 1 or 3.

    A shape that can be read both ways is channels last, or channels first where that is the custom (tensors).
    """
    if len(shape) == 3:
        n, height, width = shape
        return Layout((n, height, width, 1), (0, 1, 2))
    if len(shape) == 4:
        first, last = shape[1] in (1, 3), shape[3] in (1, 3)
        if first and (channels_first or not last):
            return Layout((shape[0], shape[2], shape[3], shape[1]), (0, 2, 3, 1))
        if last:
            return Layout((shape[0], shape[1], shape[2], shape[3]), (0, 1, 2, 3))
    raise DoorwardError(
        f"{show(where)}: images of shape {list(shape)}; expected [N, H, W], [N, H, W, C] or [N, C, H, W], C = 1 or 3"
    )


def to_8_bit(values: NDArray[Any], where: object) -> NDArray[np.uint8]:
    """Integers in 0..255 as they are, floats in [0, 1] rounded to the nearest of 256 levels."""
    if values.dtype == np.uint8:
        return values
    kind = values.dtype.kind
    if kind not in "iuf":
        raise DoorwardError(f"{show(where)}: pixels of type {values.dtype}; expected uint8, or floats in [0, 1]")
    if values.size == 0:
        return values.astype(np.uint8)
    low, high = values.min(), values.max()
    if kind == "f":
        if not np.isfinite(low) or not np.isfinite(high):
            raise DoorwardError(f"{show(where)}: pixels that are NaN or infinite; expected floats in [0, 1]")
        if low < 0 or high > 1:
            wrong = low if low < 0 else high
            raise DoorwardError(f"{show(where)}: a pixel of {wrong:g}; expected uint8, or floats in [0, 1]")
        return np.rint(values * values.dtype.type(255)).astype(np.uint8)
    if low < 0 or high > 255:
        raise DoorwardError(f"{show(where)}: a pixel of {low if low < 0 else high}; expected integers in 0..255")
    return values.astype(np.uint8)


def rows_per_chunk(row_bytes: int) -> int:
    """Rows of about 16 MB, at least one."""
    return max(1, _CHUNK_BYTES // max(1, row_bytes))


def is_tensor(value: object) -> bool:
    """True for a torch tensor; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def as_array(value: Any) -> NDArray[Any]:
    """An array that shares the memory of a tensor or an array where it can."""
    if is_tensor(value):
        value = value.detach().cpu()
        return np.asarray(value.float() if value.dtype.is_floating_point and value.element_size() < 4 else value)
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise DoorwardError(f"{type(value).__name__} of Python objects; expected numbers")
    return array


def from_arrays(images: Any, labels: Any, where: object, names: Sequence[object] | None = None) -> ImageSet:
    """The set of an array or tensor of images and one of labels.

    Args:
        images: uint8, or floats in [0, 1]; ``[N, H, W]``, ``[N, H, W, C]`` or ``[N, C, H, W]``. A uint8 array that
            is channels last already is not copied.
        labels: ``[N]`` integers or text.
        where: the source, for messages.
        names: class names.

    Raises:
        DoorwardError: shapes, types or values other than these.
    """
    source = as_array(images)
    layout = find_layout(source.shape, where, channels_first=is_tensor(images))
    numbers, classes = name_labels(as_array(labels), layout.shape[0], names, where)
    if source.dtype == np.uint8 and layout.axes != (0, 2, 3, 1):
        check_auditable(numbers, classes, where)
        return ImageSet(layout.arrange(source), numbers, classes, show(where))

    def fill(target: NDArray[np.uint8]) -> None:
        step = rows_per_chunk(source[:1].nbytes)
        for start in range(0, len(source), step):
            rows = source[start : start + step]
            target[start : start + step] = layout.arrange(to_8_bit(rows, where))
            release(target)

    return assemble(where, layout.shape, numbers, classes, fill)
