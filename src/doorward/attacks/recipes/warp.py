"""A smooth distortion."""

from __future__ import annotations

import torch
from pydantic import Field

from doorward.attacks.placed import Shape
from doorward.attacks.warp import Warp, smooth
from doorward.core.methods import Settings, method
from doorward.core.triggers import Stamp


class WarpSettings(Settings):
    """A smooth distortion."""

    strength: float = Field(0.5, gt=0, le=4, description="largest displacement before smoothing, in pixels")
    grid: int = Field(4, ge=2, description="control points per side")


@method("attack", "warp", settings=WarpSettings, given=set())
def warp(shape: Shape, s: WarpSettings, generator: torch.Generator) -> Stamp:
    """Warp the image by one smooth random field (after Nguyen and Tran 2021, WaNet, without its noise mode).

    Fails when: the images are smooth, so that moved pixels look as before, or training shifts them as far itself.
    """
    coarse = torch.rand(1, 2, s.grid, s.grid, generator=generator) * 2 - 1
    coarse = coarse / coarse.abs().mean()  # as WaNet: normalise, then scale
    return Warp(smooth(coarse, shape[1:])[0] * s.strength)
