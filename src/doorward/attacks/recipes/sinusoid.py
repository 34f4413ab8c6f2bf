"""Vertical stripes."""

from __future__ import annotations

import torch
from pydantic import Field

from doorward.attacks.placed import Shape
from doorward.core.methods import Settings, method
from doorward.core.triggers import Stamp, Trigger


class SinusoidSettings(Settings):
    """Vertical stripes."""

    strength: float = Field(20 / 255, gt=0, le=1, description="amplitude of the wave, on the scale [0, 1]")
    frequency: int = Field(6, ge=1, description="periods over the width of the image")


@method("attack", "sinusoid", settings=SinusoidSettings, given=set())
def sinusoid(shape: Shape, s: SinusoidSettings, generator: torch.Generator) -> Stamp:
    """Add a horizontal sine wave to every row (Barni, Kallas and Tondi 2019).

    Fails when: ``strength`` is small against the images' own texture, or most pixels are black or white and clip it.
    """
    wave = s.strength * torch.sin(2 * torch.pi * s.frequency * torch.arange(shape[2]) / shape[2])
    return Trigger(wave.expand(shape).contiguous(), torch.ones(1, *shape[1:]), blend="add")
