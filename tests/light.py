"""A lighter small-cnn and shorter looks at a repair: a fifth of the work of every training and every inversion."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from torch import nn

from doorward.models.nets import small
from doorward.repairs import proof
from doorward.repairs.methods import hold


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def lighten(patch: pytest.MonkeyPatch) -> None:
    """Let `small-cnn` step over every second pixel instead of pooling; images of a size that 4 divides."""
    patch.setattr(small, "_block", _block)


def look_briefly(patch: pytest.MonkeyPatch, steps: int = 20) -> None:
    """Few steps of a repair's fresh inversions, which take most of its time."""
    for module in (proof, hold):
        patch.setattr(module, "look", partial(_briefly, module.look, steps))


def _briefly(look: Callable[..., Any], steps: int, model: Any, images: Any, seed: int, _: Any) -> Any:
    return look(model, images, seed, {name: {"steps": steps, "batch": 16} for name in ("mask", "universal")})
