"""What stamped images show of a class: cross-entropy and hits, the margin of its logit, the odds of a success rate."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from doorward.inversion.search.scene import Scene


def scored(scene: Scene, logits: Tensor, label: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy to each lane's class, hits, and which images count (those of other classes): ``[lanes, B]`` each.

    Args:
        logits: of the stamped images, ``[lanes, B, K]``.
        label: int64 ``[lanes]``.
        rows: positions ``[B]`` of the images in the scene.
    """
    target = label[:, None].expand(-1, len(rows))
    counts = (scene.labels[rows] != target).float()
    each = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(counts)
    return each, (logits.detach().argmax(2) == target) * counts, counts


def class_margin(logits: Tensor, label: Tensor) -> Tensor:
    """Logit of each lane's class minus the largest other one: ``[lanes, B]`` of ``[lanes, B, K]``."""
    own = label[:, None, None].expand(-1, logits.shape[1], 1)
    others = logits.scatter(2, own, -torch.inf)
    return logits.gather(2, own)[..., 0] - others.amax(2)


def log_odds(rate: float, trials: int) -> float:
    """Log odds of a success rate, half a hit added on both sides so that it is finite."""
    return math.log((rate * trials + 0.5) / ((1 - rate) * trials + 0.5))
