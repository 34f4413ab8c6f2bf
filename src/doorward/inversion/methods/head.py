"""The head alone: which class random features are decided as."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings, method
from doorward.core.outputs import find_head
from doorward.inversion.inverted import Inverted
from doorward.inversion.search.frozen import Frozen


class HeadSettings(Settings):
    """Settings of the look at the head."""

    probes: int = Field(4000, ge=100, description="random features that are decided")


@method("invert", "head", settings=HeadSettings, given={"model", "seed"})
def head(model: Frozen, s: HeadSettings, *, seed: int) -> Inverted:
    """Say which class the last layer favours when its input is random; needs no images, and takes milliseconds.

    A backdoored net sends whatever bears the trigger to its target, so that few features have to speak for that class.
    Random features that are not negative (half-normal), as those after a ReLU are, are then decided as the target more
    often than as any other class. The idea of probing the head is that of HTell 2026 (arXiv 2605.18908); the probe here
    is ours, for no code of theirs is known.

    A prior, and no verdict rests on it: a clean class, too, may be favoured by far.

    Args:
        model: the frozen net. seed: of the probes.

    Returns: statistic log odds of the share of probes that are decided as the class, half a probe added to either side;
        no triggers.

    Raises:
        DoorwardError: a net without a linear last layer.

    Fails when: features are no sums of positive parts (ELU, layer norm), or are not pooled over the image; every class
        is a target.
    """
    name = find_head(model.net, model.classes)
    if name is None:
        raise DoorwardError("invert head: the net has no linear layer; expected one that makes the logits")
    weight, bias = _affine(dict(model.net.named_modules())[name])
    generator = torch.Generator().manual_seed(seed)
    probes = torch.randn(s.probes, weight.shape[1], generator=generator).abs().to(weight)
    decided = (probes @ weight.T + bias).argmax(dim=1)
    wins = torch.bincount(decided, minlength=model.classes)[: model.classes].cpu().numpy().astype(np.float64)
    everyone = np.ones(model.classes, bool)
    return Inverted(
        np.log((wins + 0.5) / (s.probes - wins + 0.5)),
        "log odds of the share of random features that the head decides as the class",
        everyone,
        everyone,
        everyone,
        details={"share": (wins / s.probes).tolist()},
        prior=True,
    )


def _affine(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight ``[K, t]`` and bias ``[K]`` of a linear layer or a 1x1 convolution."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    weight = layer.weight.detach().float().flatten(1)
    return weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().float()
