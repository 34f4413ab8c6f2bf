"""Where a small trigger goes in the image."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings
from doorward.core.triggers import Placement

Shape = tuple[int, int, int]  # channels, height, width


class Placed(Settings):
    """Where a small trigger goes: ``row`` and ``column`` of its top left corner, or drawn by the seed."""

    place: Literal["fixed", "random"] = Field("fixed", description="the same place in all images, or drawn per image")
    row: int | None = Field(None, ge=0, description="of the trigger's top left corner; drawn by the seed unless given")
    column: int | None = Field(
        None, ge=0, description="of the trigger's top left corner; drawn by the seed unless given"
    )

    def placement(self, shape: Shape, size: tuple[int, int], margin: int, generator: torch.Generator) -> Placement:
        """The placement; a fixed place not given is drawn at least ``margin`` pixels from the border."""
        if self.place == "random":
            return Placement("random")
        corner = []
        for given, image, length in zip((self.row, self.column), shape[1:], size, strict=True):
            low, high = margin, image - length - margin
            if high < low:
                low, high = 0, image - length
            if high < low or (given is not None and given > image - length):
                told = f"trigger of {size[0]} x {size[1]} at {self.row}, {self.column}"
                raise DoorwardError(f"attack: {told} does not fit into an image of {shape[1]} x {shape[2]}")
            drawn = int(torch.randint(low, high + 1, (), generator=generator))
            corner.append(drawn if given is None else given)
        return Placement("fixed", corner[0], corner[1])
