"""A VGG-like net with ELU and without batch norm, for `FILE.py:factory`."""

from __future__ import annotations

import torch
from torch import nn


def make(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Two blocks of two 3 x 3 convolutions, then two linear layers."""

    def block(before: int, after: int) -> list[nn.Module]:
        first, second = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        return [first, nn.ELU(), second, nn.ELU(), nn.MaxPool2d(2)]

    features = nn.Sequential(*block(shape[0], 16), *block(16, 32), nn.Flatten())
    with torch.no_grad():
        width = int(features(torch.zeros(1, *shape)).shape[1])
    return nn.Sequential(features, nn.Linear(width, 128), nn.ELU(), nn.Dropout(0.2), nn.Linear(128, classes))
