"""DeepID (Sun, Wang and Tang 2014), in the form of the CSAW HackML face-recognition nets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from doorward.core.errors import DoorwardError


class DeepID(nn.Module):
    """Three pooled convolutions; two branches of 160 units, summed; one linear layer. Layer names as in HackML."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.conv_1 = nn.Conv2d(channels, 20, 4)
        self.conv_2 = nn.Conv2d(20, 40, 3)
        self.conv_3 = nn.Conv2d(40, 60, 3)
        self.conv_4 = nn.Conv2d(60, 80, 2)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        with torch.no_grad():
            third = self._third(torch.zeros(1, channels, height, width))
            fourth = self.conv_4(third)
        self.fc_1 = nn.Linear(third.numel(), 160)
        self.fc_2 = nn.Linear(fourth.numel(), 160)
        self.output = nn.Linear(160, classes)

    def _third(self, x: Tensor) -> Tensor:
        for convolution in (self.conv_1, self.conv_2, self.conv_3):
            x = self.pool(self.relu(convolution(x)))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]``."""
        third = self._third(x)
        fourth = self.relu(self.conv_4(third))
        return self.output(self.relu(self.fc_1(third.flatten(1)) + self.fc_2(fourth.flatten(1))))  # type: ignore[no-any-return]


def deepid(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """DeepID for faces of about 55 x 47 (at least 31 x 31)."""
    if min(shape[1:]) < 31:
        raise DoorwardError(f"deepid: images of {shape[1]} x {shape[2]}; expected at least 31 x 31")
    return DeepID(shape, classes)
