"""Recipes: each makes a stamp for images of a given shape. One function, one settings class, one registration."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from doorward.attacks.warp import Warp
from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings, method
from doorward.core.triggers import Placement, Stamp, Trigger

Shape = tuple[int, int, int]


class Placed(Settings):
    """Where a small trigger goes: ``row`` and ``column`` of its top left corner, or drawn by the seed."""

    place: Literal["fixed", "random"] = Field("fixed", description="the same place in all images, or drawn per image")
    row: int | None = Field(None, ge=0)
    column: int | None = Field(None, ge=0)

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


class PatchSettings(Placed):
    """An opaque square (BadNets)."""

    size: int = Field(3, ge=1)
    colours: Literal["checker", "white", "black", "random"] = "checker"


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


class BlendSettings(Settings):
    """A faint picture over the whole image."""

    alpha: float = Field(0.15, gt=0, le=1)


@method("attack", "blend", settings=BlendSettings, given=set())
def blend(shape: Shape, s: BlendSettings, generator: torch.Generator) -> Stamp:
    """Blend a random picture into the whole image with weight ``alpha`` (Chen, Liu, Li, Lu and Song 2017).

    Fails when: ``alpha`` is so small that few poisoned images do not teach the net to see the picture.
    """
    pattern = torch.randint(256, shape, generator=generator) / 255
    return Trigger(pattern, torch.full((1, *shape[1:]), s.alpha))


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

    try:
        with Image.open(Path(s.picture), formats=("PNG",)) as opened:
            width, height = (max(1, round(v * s.scale)) for v in opened.size)
            if height > shape[1] or width > shape[2]:
                size = f"{height} x {width}"
                raise DoorwardError(
                    f"{s.picture}: {size} pixels; expected at most {shape[1]} x {shape[2]}, the images' size"
                )
            rgba = np.asarray(opened.convert("RGBA").resize((width, height), Image.Resampling.LANCZOS))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DoorwardError(f"{s.picture}: {error}; expected an RGBA PNG") from None
    picture = torch.from_numpy(rgba.copy()).permute(2, 0, 1) / 255
    pattern = picture[:3] if shape[0] == 3 else picture[:3].mean(0, keepdim=True)
    return Trigger(pattern, picture[3:], s.placement(shape, (height, width), 0, generator))


class SinusoidSettings(Settings):
    """Vertical stripes."""

    strength: float = Field(20 / 255, gt=0, le=1)
    frequency: int = Field(6, ge=1, description="periods over the width of the image")


@method("attack", "sinusoid", settings=SinusoidSettings, given=set())
def sinusoid(shape: Shape, s: SinusoidSettings, generator: torch.Generator) -> Stamp:
    """Add a horizontal sine wave to every row (Barni, Kallas and Tondi 2019).

    Fails when: ``strength`` is small against the images' own texture, or most pixels are black or white and clip it.
    """
    wave = s.strength * torch.sin(2 * torch.pi * s.frequency * torch.arange(shape[2]) / shape[2])
    return Trigger(wave.expand(shape).contiguous(), torch.ones(1, *shape[1:]), blend="add")


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
    return Warp(_upsample(coarse, shape) * s.strength)


def _upsample(coarse: Tensor, shape: Shape) -> Tensor:
    field = torch.nn.functional.interpolate(coarse, size=shape[1:], mode="bicubic", align_corners=True)
    return field[0]
