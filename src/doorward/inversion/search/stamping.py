"""Stamping for the loop: every lane's trigger on every image of its batch, at once, differentiable.

Images lie channels last, ``[lanes or 1, B, H, W, C]``; results are ``[lanes, B, H, W, C]``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def blend_whole(images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """x' = (1 - m) x + m t over whole images.

    Args:
        images: ``[lanes or 1, B, H, W, C]``.
        mask: ``[lanes, H, W, 1 or C]`` in [0, 1].
        pattern: ``[lanes, H, W, C]``, on the scale of the images.

    Written as a product and a sum, so that the backward pass sums over the batch before it meets the pattern.
    """
    return images * (1 - mask)[:, None] + (mask * pattern)[:, None]


def stamp_windows(images: Tensor, pattern: Tensor, alpha: Tensor | None, top: Tensor, left: Tensor) -> Tensor:
    """Small triggers, each image's at a place of its own.

    Args:
        images: ``[lanes or 1, B, H, W, C]``.
        pattern: ``[lanes, B or 1, h, w, C]``, on the scale of the images.
        alpha: ``[lanes, B or 1, h, w, 1]`` in [0, 1]; None is opaque.
        top, left: rows and columns of the top left corners, ``[lanes, B]``.
    """
    lanes, batch = top.shape
    h, w = pattern.shape[2:4]
    device = images.device
    where = (
        torch.arange(lanes, device=device)[:, None, None, None],
        torch.arange(batch, device=device)[None, :, None, None],
        top[:, :, None, None] + torch.arange(h, device=device)[:, None],
        left[:, :, None, None] + torch.arange(w, device=device),
    )
    canvas = images.expand(lanes, *images.shape[1:])
    values = pattern.expand(lanes, batch, *pattern.shape[2:])
    if alpha is not None:
        values = (1 - alpha) * canvas[where] + alpha * values
    return canvas.index_put(where, values)


def windows(points: Tensor, channels: int, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
    """Generated numbers ``[lanes, B, P]`` as patterns ``[lanes, B, h, w, C]`` and, when P has room, alphas.

    Alphas ``[lanes, B, h, w, 1]`` lie behind the colours of their pixel.
    """
    whole = points.view(*points.shape[:2], *size, -1)
    return whole[..., :channels], whole[..., channels:] if whole.shape[-1] > channels else None


def corners(
    lanes: int, batch: int, image: tuple[int, int], size: tuple[int, int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Rows and columns ``[lanes, batch]`` of top left corners, every place in the image equally likely."""
    top, left = (
        torch.randint(whole - part + 1, (lanes, batch), generator=generator, device=generator.device)
        for whole, part in zip(image, size, strict=True)
    )
    return top, left
