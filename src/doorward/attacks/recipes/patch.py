"""An opaque square."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from doorward.attacks.placed import Placed, Shape
from doorward.core.errors import DoorwardError
from doorward.core.methods import method
from doorward.core.triggers import Placement, Stamp, Trigger


class PatchSettings(Placed):
    """An opaque square (BadNets)."""

    size: int = Field(3, ge=1, description="side of the square in pixels")
    colours: Literal["checker", "white", "black", "random"] = Field(
        "checker", description="of its pixels; random ones are drawn by the seed"
    )


@method("attack", "patch", settings=PatchSettings, given=set())
def patch(shape: Shape, s: PatchSettings, generator: torch.Generator) -> Stamp:
    """Overwrite a small square: checkerboard, white, black, or random colours (Gu, Dolan-Gavitt and Garg 2017).

    A fixed place not given is the bottom right corner, one pixel from the border.

    Fails when: the patch looks like something that clean images have at that place, or too few images carry it.
    """
    channels, height, width = shape
    if s.size > min(height, width):
        raise DoorwardError(f"attack patch: size {s.size} on images of {height} x {width}; expected a smaller size")
    square = (channels, s.size, s.size)
    if s.colours == "random":
        pattern = torch.randint(256, square, generator=generator) / 255
    elif s.colours == "checker":
        pattern = ((torch.arange(s.size)[:, None] + torch.arange(s.size)) % 2 == 0).float().expand(square)
    else:
        pattern = torch.full(square, float(s.colours == "white"))
    if s.place == "fixed" and s.row is None and s.column is None:
        gap = 1 if s.size < min(height, width) else 0
        placement = Placement("fixed", height - s.size - gap, width - s.size - gap)
    else:
        placement = s.placement(shape, (s.size, s.size), 0, generator)
    return Trigger(pattern.contiguous(), torch.ones(1, s.size, s.size), placement)
