"""Pixels between the 8-bit grid and what nets take."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doorward.core.errors import DoorwardError


def to_float(pixels: NDArray[np.uint8] | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 ``[B, H, W, C]`` to float ``[B, C, H, W]`` in [0, 1] on the device, channels last in memory."""
    tensor = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.array(pixels))  # a memory map is read-only
    return tensor.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div(255)


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Float ``[B, C, H, W]`` in [0, 1] to uint8 ``[B, H, W, C]``, rounded to the 8-bit grid."""
    rounded = images.detach().clamp(0, 1).mul(255).round().byte()
    return rounded.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def as_bytes(pixels: NDArray[Any] | Tensor, shape: tuple[int, int, int], what: str) -> NDArray[np.uint8]:
    """Images as a classifier takes them: uint8 as they are, floats in [0, 1] rounded to the 8-bit grid.

    Args:
        pixels: ``[N, H, W, C]``, uint8 or floats; an array or a tensor.
        shape: channels, height, width that every image must have.
        what: whose images, for the message.

    Raises:
        DoorwardError: another shape, another type, floats outside [0, 1] or NaN.
    """
    if isinstance(pixels, Tensor):
        pixels = pixels.numpy(force=True)
    channels, height, width = shape
    if pixels.ndim != 4 or pixels.shape[1:] != (height, width, channels):
        raise DoorwardError(
            f"{what}: images of shape {list(pixels.shape)}; the classifier takes {height}x{width}x{channels}, "
            "expected [images, height, width, channels]"
        )
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind != "f":
        raise DoorwardError(f"{what}: images of type {pixels.dtype}; expected uint8, or floats from 0 to 1")
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):
        raise DoorwardError(f"{what}: floats from {low:g} to {high:g}; expected 0 to 1, or uint8")
    return np.rint(pixels * 255).astype(np.uint8)
