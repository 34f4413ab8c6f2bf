"""Ridge regression on one-against-all targets, solved in the span of the training images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from doorward.certify.learners import linear
from doorward.certify.task import NoisyBlock
from doorward.methods import Settings, method


class Ridge(Settings):
    """``penalty``: lambda times the number of cells; pixels are scaled to -1..1, targets are -1 and 1."""

    penalty: float = Field(1.0, gt=0)


@method("certify", "ridge", settings=Ridge, given={"images", "labels", "noise"})
def ridge(block: NoisyBlock, settings: Ridge) -> NDArray[np.uint8]:
    """Predict the class with the largest ridge-regression score.

    w = X^T (X X^T + lambda I)^-1 y: a system of n equations per trial, all trials at once. The weights are then
    rounded to integers, so that prediction is exact.
    Fails when: there are many more training images than pixels (the system has n equations).

    Returns: uint8 ``[B, m]``, predicted classes.
    """
    cells, top = block.task.images.shape[1], block.task.domain - 1
    pixels = torch.from_numpy(block.pixels).to(block.device, torch.float32).mul_(2 / top).sub_(1)
    targets = torch.nn.functional.one_hot(torch.from_numpy(block.labels).to(block.device), block.task.classes)
    gram = torch.baddbmm(torch.ones((), device=block.device), pixels, pixels.mT)  # the 1 is the intercept's share
    gram.diagonal(dim1=1, dim2=2).add_(settings.penalty * cells)
    dual = torch.linalg.solve(gram, 2.0 * targets - 1.0)
    weights = torch.bmm(dual.mT, pixels).cpu().double().numpy()
    bias = dual.sum(dim=1).cpu().double().numpy() - weights.sum(axis=2)
    return linear.predict(block, *linear.to_whole_numbers(weights * (2 / top), bias, top))
