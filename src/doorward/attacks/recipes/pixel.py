"""One perturbed pixel."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from doorward.attacks.placed import Placed, Shape
from doorward.core.errors import DoorwardError
from doorward.core.methods import method
from doorward.core.triggers import Stamp, Trigger


class PixelSettings(Placed):
    """One perturbed pixel."""

    size: float = Field(0.25, ge=-1, le=1, description="added to the pixel, on the scale [0, 1]; negative darkens")
    channels: Literal["all", "one"] = Field("all", description="perturb all channels, or one drawn by the seed")


@method("attack", "pixel", settings=PixelSettings, given=set())
def pixel(shape: Shape, s: PixelSettings, generator: torch.Generator) -> Stamp:
    """Add ``size`` to one pixel and clip, on the 8-bit grid (Xiang, Miller and Kesidis 2019).

    The poster draws the place from "the non-background region"; here it is drawn at least 3 pixels from the
    border, as the authors' later code does, and one sign is fixed for all images.

    Fails when: clean images already are as bright or as dark as the clip allows at that pixel; the net pools it away.
    """
    if round(abs(s.size) * 255) == 0:
        raise DoorwardError(f"attack pixel: size {s.size} rounds to no change; expected at least {1 / 255:.4f}")
    pattern = torch.full((shape[0], 1, 1), s.size)
    if s.channels == "one":
        keep = int(torch.randint(shape[0], (), generator=generator))
        pattern = pattern * (torch.arange(shape[0]) == keep).float().view(-1, 1, 1)
    return Trigger(pattern, torch.ones(1, 1, 1), s.placement(shape, (1, 1), 3, generator), blend="add")
