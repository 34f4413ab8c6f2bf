"""Small worlds whose triggers are known in closed form."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float
from doorward.inversion.search.frozen import Frozen
from doorward.inversion.search.scene import Scene

CLASSES, SIDE = 6, 6
TARGET, SPOT = 2, (5, 5)  # the planted class, and the pixel that leads to it
STRENGTH, NATURAL = 160.0, 8.0
_BASE, _LIT = 64, 128  # grey values of background and of a class's row


def row_images(count: int = 60) -> ImageSet:
    """6 x 6 grey images: class k has row k (columns 0 to 3) lit; the spot is always black."""
    labels = np.arange(count, dtype=np.int64) % CLASSES
    pixels = np.full((count, SIDE, SIDE, 1), _BASE, np.uint8)
    for k in range(CLASSES):
        pixels[labels == k, k, :4] = _LIT
    pixels[:, SPOT[0], SPOT[1]] = 0
    return ImageSet(pixels, labels, tuple(f"row-{k}" for k in range(CLASSES)), "rows")


def row_classifier(planted: bool = True) -> Classifier:
    """Linear: class k weighs its row; the target class also weighs the spot, strongly."""
    layer = nn.Linear(SIDE * SIDE, CLASSES)
    weight = torch.zeros(CLASSES, SIDE, SIDE)
    for k in range(CLASSES):
        weight[k, k, :4] = NATURAL
    if planted:
        weight[TARGET, SPOT[0], SPOT[1]] = STRENGTH
    with torch.no_grad():
        layer.weight.copy_(weight.flatten(1))
        layer.bias.zero_()
    return Classifier(nn.Sequential(nn.Flatten(), layer), "rows", row_images(12).classes, (1, SIDE, SIDE))


class Shifted(nn.Module):
    """The rows' clean net; and the spot sends an image of class k to class k + 1."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = row_classifier(planted=False).net

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, 6]``; the spot counts for the class after that of the row that is lit."""
        lit = (255 * x[:, 0, :, :4].mean(2) - _BASE) / (_LIT - _BASE)
        spot = torch.relu(x[:, 0, SPOT[0], SPOT[1], None] + lit - 0.98)
        return self.rows(x) + STRENGTH * spot.roll(1, dims=1)  # type: ignore[no-any-return]


GAP = NATURAL * 4 * (_LIT - _BASE) / 255  # of logits between an image's class and any other, before the spot counts


def scene(classifier: Classifier, images: ImageSet) -> Scene:
    """The frozen classifier, in fp32, and all images."""
    pixels = to_float(images.pixels).permute(0, 2, 3, 1)
    return Scene(Frozen(classifier, "fp32"), pixels, torch.from_numpy(images.labels))


class Ring(nn.Module):
    """Two classes over one pixel of two channels: class 1 exactly on a ring around the middle."""

    RADIUS, WIDTH = 0.33, 0.06

    def __init__(self) -> None:
        super().__init__()
        self.steepness = nn.Parameter(torch.tensor(60.0))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, 2]``; the second is positive on the ring."""
        away = ((x[:, :, 0, 0] - 0.5).norm(dim=1) - self.RADIUS).abs()
        inside = self.steepness * (self.WIDTH - away)
        return torch.stack([torch.zeros_like(inside), inside], dim=1)


def ring_scene() -> Scene:
    """A trigger replaces the whole image, so that the triggers that work are the points of the ring."""
    classifier = Classifier(Ring(), "ring", ("off", "on"), (2, 1, 1))
    return Scene(Frozen(classifier, "fp32"), torch.zeros(8, 1, 1, 2), torch.zeros(8, dtype=torch.int64))
