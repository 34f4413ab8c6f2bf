"""Architectures: plain functions from (image shape, number of classes) to a module.

The last `nn.Linear` of every net is its output layer; what enters it are the penultimate features.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from doorward.core.errors import DoorwardError
from doorward.models.nets.deepid import deepid
from doorward.models.nets.resnet import resnet18, resnet20
from doorward.models.nets.small import conv4, pooled_cnn, small_cnn, two_layer

Shape = tuple[int, int, int]
Factory = Callable[[Shape, int], nn.Module]

NETS: dict[str, Factory] = {
    "two-layer": two_layer,
    "small-cnn": small_cnn,
    "pooled-cnn": pooled_cnn,
    "conv4": conv4,
    "resnet20": resnet20,
    "resnet18": resnet18,
    "deepid": deepid,
}


def build(name: str, shape: Shape, classes: int) -> nn.Module:
    """A freshly initialised net for images of ``shape`` (C, H, W); weights come from torch's global generator."""
    if name not in NETS:
        raise DoorwardError(f"net {name!r}; expected one of {', '.join(NETS)}")
    return NETS[name](shape, classes)
