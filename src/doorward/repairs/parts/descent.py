"""SGD on the clean images, in float32, for repairs whose gradients are not those of a plain loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pydantic import Field
from torch import Tensor

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.models.train.batches import BatchSource
from doorward.models.train.loop import make_optimiser
from doorward.models.train.settings import TrainSettings
from doorward.repairs.parts.batch_norms import batch_statistics
from doorward.repairs.parts.tuning import HeldOutSettings, finite

# Gradients of the parameters on a batch of images ``[B, C, H, W]`` with labels ``[B]``; None where there is none.
Slope = Callable[[Tensor, Tensor], Sequence[Tensor | None]]


class DescentSettings(HeldOutSettings):
    """Base of the settings of such a repair."""

    epochs: int = Field(10, ge=1, description="passes over the clean images")
    batch: int = Field(64, ge=2, description="images per step")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD, Nesterov's")
    weight_decay: float = Field(1e-4, ge=0, description="of SGD, on weights and not on biases and norms")
    flip: bool = Field(False, description="mirror images left to right at random")
    shift: int = Field(0, ge=0, description="largest shift in pixels, each direction")


def descend(
    classifier: Classifier,
    images: ImageSet,
    s: DescentSettings,
    slope: Slope,
    rate_at: Callable[[float], float],
    *,
    seed: int,
) -> None:
    """Train a classifier in place; ends early when its weights diverge.

    Batch norms use the statistics of their batch and keep running ones; dropout is off, so that the seed decides all.

    Args:
        slope: gradients of ``classifier.net.parameters()``.
        rate_at: the learning rate when this share of all steps is done.
    """
    parameters = list(classifier.net.parameters())
    training = TrainSettings(batch=s.batch, momentum=s.momentum, weight_decay=s.weight_decay)
    optimiser = make_optimiser(classifier.net, training)
    source = BatchSource(images, s.batch, seed, classifier.device, s.flip, s.shift)
    done, steps = 0, s.epochs * source.steps
    with batch_statistics(classifier.net):
        for epoch in range(s.epochs):
            for batch, labels, _ in source.epoch(epoch):
                for group in optimiser.param_groups:
                    group["lr"] = rate_at(done / steps)
                for parameter, gradient in zip(parameters, slope(batch, labels), strict=True):
                    parameter.grad = gradient
                optimiser.step()
                done += 1
            if not finite(classifier):
                break
    for parameter in parameters:
        parameter.grad = None


def gradients(loss: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Of a loss; None where a parameter takes no part in it."""
    return torch.autograd.grad(loss, parameters, allow_unused=True)
