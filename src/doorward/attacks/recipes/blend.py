"""A faint picture over the whole image."""

from __future__ import annotations

import torch
from pydantic import Field

from doorward.attacks.placed import Shape
from doorward.core.methods import Settings, method
from doorward.core.triggers import Stamp, Trigger


class BlendSettings(Settings):
    """A faint picture over the whole image."""

    alpha: float = Field(0.15, gt=0, le=1, description="weight of the picture; the image has the rest")


@method("attack", "blend", settings=BlendSettings, given=set())
def blend(shape: Shape, s: BlendSettings, generator: torch.Generator) -> Stamp:
    """Blend a random picture into the whole image with weight ``alpha`` (Chen, Liu, Li, Lu and Song 2017).

    Fails when: ``alpha`` is so small that few poisoned images do not teach the net to see the picture.
    """
    pattern = torch.randint(256, shape, generator=generator) / 255
    return Trigger(pattern, torch.full((1, *shape[1:]), s.alpha))
