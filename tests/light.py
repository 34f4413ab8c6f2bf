"""A lighter small-cnn: a fifth of the work of every training and every inversion."""

from __future__ import annotations

import pytest
from torch import nn

from doorward.models.nets import small


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def lighten(patch: pytest.MonkeyPatch) -> None:
    """Let `small-cnn` step over every second pixel instead of pooling; images of a size that 4 divides."""
    patch.setattr(small, "_block", _block)
