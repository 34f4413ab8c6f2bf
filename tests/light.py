"""Lighter nets and shorter looks at a repair: a fifth of the work of every training and every inversion."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from doorward.audits import audit as audits
from doorward.audits import gathering, rounds
from doorward.audits.parts import trainer
from doorward.inversion.invert import invert
from doorward.models.nets import small
from doorward.models.nets.deepid import DeepID
from doorward.repairs import proof
from doorward.repairs.methods import hold


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def lighten(patch: pytest.MonkeyPatch) -> None:
    """Let `small-cnn` step over every second pixel instead of pooling; images of a size that 4 divides."""
    patch.setattr(small, "_block", _block)


def lighten_deepid(patch: pytest.MonkeyPatch) -> None:
    """`deepid` of half the width, whose first convolution steps over every second pixel instead of pooling."""
    patch.setattr(DeepID, "__init__", _narrow)
    patch.setattr(DeepID, "_third", _third)


def _narrow(net: DeepID, shape: tuple[int, int, int], classes: int) -> None:
    nn.Module.__init__(net)
    channels, height, width = shape
    net.conv_1, net.conv_2 = nn.Conv2d(channels, 10, 4, stride=2), nn.Conv2d(10, 20, 3)
    net.conv_3, net.conv_4 = nn.Conv2d(20, 30, 3), nn.Conv2d(30, 40, 2)
    net.pool, net.relu = nn.MaxPool2d(2), nn.ReLU()
    with torch.no_grad():
        third = net._third(torch.zeros(1, channels, height, width))
        fourth = net.conv_4(third)
    net.fc_1, net.fc_2 = nn.Linear(third.numel(), 160), nn.Linear(fourth.numel(), 160)
    net.output = nn.Linear(160, classes)


def _third(net: DeepID, x: Tensor) -> Tensor:
    x = net.relu(net.conv_1(x))
    for convolution in (net.conv_2, net.conv_3):
        x = net.pool(net.relu(convolution(x)))
    return x


def look_briefly(patch: pytest.MonkeyPatch, steps: int = 20) -> None:
    """Few steps of a repair's fresh inversions, which take most of its time."""
    for module in (proof, hold):
        patch.setattr(module, "look", partial(_briefly, module.look, steps))


def _briefly(look: Callable[..., Any], steps: int, model: Any, images: Any, seed: int, _: Any) -> Any:
    return look(model, images, seed, {name: {"steps": steps, "batch": 16} for name in ("mask", "universal")})


def repair_briefly(patch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Two rounds of `ibau` where a module repairs with its defaults, in place of ten."""
    patch.setattr(module, "apply_repair", partial(_two_rounds, module.apply_repair))


def _two_rounds(repair: Callable[..., Any], classifier: Any, method: str, **given: Any) -> Any:
    settings = {"rounds": 2, "batches": 4} if method == "ibau" else None
    return repair(classifier, method, settings=settings, **given)


def audit_briefly(patch: pytest.MonkeyPatch) -> None:
    """Audits of one round and one class, with short trainings and inversions."""
    patch.setattr(trainer, "_STEPS", 40)
    patch.setattr(audits, "MOST_ROUNDS", 1)
    patch.setattr(rounds, "MOST", 1)
    short = {name: {"steps": 50} for name in ("mask", "universal")}
    patch.setattr(gathering, "invert", partial(invert, settings=short))
