"""`Warp`: a stamp that moves pixels instead of painting them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from doorward.core.errors import DoorwardError
from doorward.core.tensors import write_tensors


def smooth(coarse: Tensor, size: tuple[int, int]) -> Tensor:
    """Fields ``[B, 2, H, W]`` from a few control points a side, ``[B, 2, g, g]``."""
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=True)


def moved(images: Tensor, fields: Tensor) -> Tensor:
    """Images ``[B, C, H, W]`` along their fields ``[B or 1, 2, H, W]`` (x, y) in pixels; bilinear, edges repeated."""
    height, width = images.shape[2:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    pixel = torch.tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)]).view(2, 1, 1)
    grid = (torch.stack([x, y]).to(fields) + fields * pixel.to(fields)).permute(0, 2, 3, 1)
    grid = grid.to(images).expand(len(images), -1, -1, -1)
    return torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=True)


@dataclass(frozen=True, eq=False)
class Warp:
    """A fixed displacement field ``[2, H, W]`` (x, y) in pixels; sampling is bilinear, edges repeated."""

    field: Tensor

    def apply(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Warp ``[B, C, H, W]`` images in [0, 1]."""
        _, height, width = self.field.shape
        if images.shape[2:] != self.field.shape[1:]:
            size = f"{images.shape[2]} x {images.shape[3]}"
            raise DoorwardError(f"warp for images of {height} x {width} on images of {size}")
        return moved(images, self.field[None])

    def save(self, path: Path | str) -> None:
        """Write safetensors."""
        write_tensors(path, {"warp": self.field})
