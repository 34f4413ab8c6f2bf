"""Searched pictures of all lanes: from free numbers to grey values, from coarse cells to pixels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def squash(free: Tensor) -> Tensor:
    """From free numbers to (0, 1), by the hyperbolic tangent."""
    return (free.tanh() + 1) / 2


def enlarged(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures ``[lanes, h, w, C]`` at another height and width, bilinear."""
    if tuple(pictures.shape[1:3]) == size:
        return pictures
    return functional.interpolate(pictures.permute(0, 3, 1, 2), size, mode="bilinear").permute(0, 2, 3, 1)
