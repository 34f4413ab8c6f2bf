"""Batch norm in repairs: statistics estimated anew from clean images, and layers that use their batch's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from doorward.core.classifier import Classifier
from doorward.models.train.batches import BatchSource


def batch_norms(net: nn.Module) -> list[_BatchNorm]:
    """The layers that keep running statistics."""
    return [m for m in net.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@contextmanager
def batch_statistics(net: nn.Module) -> Iterator[None]:
    """Within the block batch norms use the statistics of their batch; every other layer (dropout) stays as it is.

    With fixed statistics the layers of a deep net drift out of them together, and a few steps destroy it.
    """
    norms = batch_norms(net)
    for norm in norms:
        norm.train()
    try:
        yield
    finally:
        for norm in norms:
            norm.eval()


@contextmanager
def still_statistics(net: nn.Module) -> Iterator[None]:
    """Within the block no running statistic moves; batch norms in training mode still use those of their batch."""
    norms = batch_norms(net)
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@torch.no_grad()
def estimate_statistics(classifier: Classifier, source: BatchSource, passes: int = 1) -> int:
    """Make every running statistic the average over the batches of so many passes; returns the number of layers."""
    norms = batch_norms(classifier.net)
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: the plain average of all batches
    with batch_statistics(classifier.net):
        for number in range(passes):
            for batch, _, _ in source.epoch(number):
                classifier.logits(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return len(norms)
