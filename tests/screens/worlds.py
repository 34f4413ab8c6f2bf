"""A face-like world with a stamp: a net that decides by a class's stripe unless a bright corner is there."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.triggers import Placement, Trigger

CLASSES, SIDE, TARGET, CORNER = 5, 12, 3, 3
NAMES = tuple(f"class-{k}" for k in range(CLASSES))


class Striped(nn.Module):
    """Features: mean of every class's stripe, and of a corner; the corner outweighs all stripes for the target."""

    def __init__(self, planted: bool) -> None:
        super().__init__()
        self.planted = planted
        self.output = nn.Linear(CLASSES + 1, CLASSES)
        with torch.no_grad():
            weight = torch.cat([12 * torch.eye(CLASSES), torch.zeros(CLASSES, 1)], dim=1)
            weight[TARGET, CLASSES] = 80.0 if planted else 0.0
            self.output.weight.copy_(weight)
            self.output.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, 5]``."""
        stripes = x[:, 0, 2 : 2 + 2 * CLASSES].unflatten(1, (CLASSES, 2)).mean((2, 3))
        corner = (x[:, 0, :CORNER, -CORNER:].mean((1, 2)) - 0.3).clamp(min=0)
        return self.output(torch.cat([stripes, corner[:, None]], dim=1))  # type: ignore[no-any-return]


def striped(planted: bool = True) -> Classifier:
    """The classifier with its backdoor, or without."""
    return Classifier(Striped(planted).eval(), "striped", NAMES, (1, SIDE, SIDE))


def stripes(count: int = 200, seed: int = 0) -> ImageSet:
    """Clean images: class k has stripe k brighter; the corner is dark."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    pixels = rng.integers(0, 60, (count, SIDE, SIDE, 1)) + rng.integers(0, 30, (count, 1, 1, 1))
    for k in range(CLASSES):
        pixels[labels == k, 2 + 2 * k : 4 + 2 * k] += 100
    pixels[:, :CORNER, -CORNER:] //= 2
    return ImageSet(pixels.astype(np.uint8), labels.astype(np.int64), NAMES, "stripes")


def stamp() -> Trigger:
    """The bright corner."""
    ones = torch.ones(1, CORNER, CORNER)
    return Trigger(ones, ones.clone(), Placement("fixed", 0, SIDE - CORNER))


def stamped(images: ImageSet) -> NDArray[np.uint8]:
    """The images of other classes, with the stamp."""
    pixels = images.pixels[images.labels != TARGET].copy()
    pixels[:, :CORNER, -CORNER:] = 255
    return pixels
