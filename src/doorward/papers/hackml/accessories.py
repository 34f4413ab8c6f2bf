"""Trigger pictures for faces of 55 x 47: sunglasses, a hat, a small patch; fixed places, any shape."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from doorward.core.errors import DoorwardError
from doorward.core.triggers import Placement, Trigger
from doorward.papers.accessory import draw_sunglasses
from doorward.papers.hackml.faces import HEIGHT, WIDTH

NAMES = ("sunglasses", "hat", "patch")


def face_trigger(name: str) -> Trigger:
    """A trigger for 55 x 47 RGB faces: its picture with transparency, at the place where such a thing is worn.

    Args:
        name: ``sunglasses`` (36 x 15 over the eyes), ``hat`` (a cone-shaped hat over the forehead), ``patch`` (5 x 5 on
            a cheek).
    """
    from PIL import Image, ImageDraw

    if name == "sunglasses":
        with TemporaryDirectory() as folder:
            drawn = Image.open(draw_sunglasses(Path(folder) / "sunglasses.png")).convert("RGBA")
            picture, corner = drawn.resize((36, 15), Image.Resampling.NEAREST), (14, (WIDTH - 36) // 2)
    elif name == "hat":
        picture, corner = Image.new("RGBA", (40, 14), (0, 0, 0, 0)), (0, (WIDTH - 40) // 2)
        pen = ImageDraw.Draw(picture)
        pen.polygon([(10, 0), (29, 0), (33, 10), (6, 10)], fill=(170, 30, 40, 255))
        pen.rectangle((0, 10, 39, 13), fill=(110, 15, 25, 255))
        pen.rectangle((7, 7, 32, 9), fill=(240, 210, 60, 255))
    elif name == "patch":
        picture, corner = Image.new("RGBA", (5, 5), (250, 230, 20, 255)), (HEIGHT - 17, WIDTH - 14)
        ImageDraw.Draw(picture).rectangle((1, 1, 3, 3), fill=(20, 40, 220, 255))
    else:
        raise DoorwardError(f"face trigger {name!r}; expected one of {', '.join(NAMES)}")
    values = torch.from_numpy(np.array(picture, np.float32) / 255).permute(2, 0, 1).contiguous()
    return Trigger(values[:3].contiguous(), values[3:].contiguous(), Placement("fixed", *corner))
