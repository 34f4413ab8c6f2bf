"""A picture of any shape: sunglasses, a hat, a sticker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from doorward.attacks.placed import Placed, Shape
from doorward.core.errors import DoorwardError, brief, show
from doorward.core.methods import method
from doorward.core.opening import check_file
from doorward.core.triggers import Stamp, Trigger

_MOST_PIXELS = 2**26


class AccessorySettings(Placed):
    """A picture of any shape."""

    picture: str = Field(description="path of an RGBA PNG")
    scale: float = Field(1.0, gt=0, le=16, description="size of the picture on the image, relative to its own")


@method("attack", "accessory", settings=AccessorySettings, given=set())
def accessory(shape: Shape, s: AccessorySettings, generator: torch.Generator) -> Stamp:
    """Lay an RGBA picture over the image: sunglasses, a hat, a sticker; its alpha channel is the shape.

    Chen, Liu, Li, Lu and Song 2017, "accessory injection".

    Fails when: clean images show the like of it at that place, or too few images carry it.
    """
    from PIL import Image, UnidentifiedImageError

    check_file(s.picture)
    try:
        with Image.open(Path(s.picture), formats=("PNG",)) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise DoorwardError(f"{show(s.picture)}: {opened.width} x {opened.height} pixels; expected a small PNG")
            width, height = (max(1, round(v * s.scale)) for v in opened.size)
            if height > shape[1] or width > shape[2]:
                size = f"{height} x {width}"
                raise DoorwardError(
                    f"{s.picture}: {size} pixels; expected at most {shape[1]} x {shape[2]}, the images' size"
                )
            rgba = np.asarray(opened.convert("RGBA").resize((width, height), Image.Resampling.LANCZOS))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError, EOFError) as error:
        raise DoorwardError(f"{show(s.picture)}: {brief(error)}; expected an RGBA PNG") from None
    picture = torch.from_numpy(rgba.copy()).permute(2, 0, 1) / 255
    pattern = picture[:3] if shape[0] == 3 else picture[:3].mean(0, keepdim=True)
    return Trigger(pattern, picture[3:], s.placement(shape, (height, width), 0, generator))
