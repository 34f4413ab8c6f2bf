"""Ridge regression on one-against-all targets."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from doorward.certification.smoothing.parts import linear
from doorward.certification.smoothing.task import NoisyBlock
from doorward.core.methods import Settings, method


class Ridge(Settings):
    """Settings of ridge regression."""

    penalty: float = Field(
        1.0, gt=0, description="lambda times the number of cells; pixels run from -1 to 1, targets are -1 and 1"
    )


@method("certify", "ridge", settings=Ridge, given={"images", "labels", "noise"})
def ridge(block: NoisyBlock, settings: Ridge) -> NDArray[np.uint8]:
    """Predict the class with the largest ridge-regression score.

    w = X^T (X X^T + lambda I)^-1 y, or (X^T X + lambda I)^-1 X^T y when there are more images than pixels; all trials
    at once. The weights are then rounded to whole numbers, so that prediction is exact.
    A base learner for flip smoothing (Wang, Cao, Jia and Gong 2020).

    Fails when: no straight line tells the classes apart; thousands of images with thousands of pixels (large systems).

    Returns: uint8 ``[B, m]``, predicted classes.
    """
    scale = 2 / (block.task.domain - 1)
    pixels = torch.from_numpy(block.pixels).to(block.device, torch.float32).mul_(scale).sub_(1)
    inputs = torch.nn.functional.pad(pixels, (0, 1), value=1.0)  # the last one is the intercept's
    targets = torch.nn.functional.one_hot(torch.from_numpy(block.labels).to(block.device), block.task.classes)
    solution = _solve(inputs, 2.0 * targets - 1.0, settings.penalty * pixels.shape[2])
    weights = solution.mT.cpu().double().numpy()
    bias = weights[:, :, -1] - weights[:, :, :-1].sum(axis=2)
    return linear.predict(block, *linear.to_whole_numbers(weights[:, :, :-1] * scale, bias, block.task.domain - 1))


def _solve(inputs: torch.Tensor, targets: torch.Tensor, penalty: float) -> torch.Tensor:
    """(X^T X + penalty I)^-1 X^T y for every trial, ``[B, cells, K]``."""
    in_span = inputs.shape[1] <= inputs.shape[2]
    gram = torch.bmm(inputs, inputs.mT) if in_span else torch.bmm(inputs.mT, inputs)
    gram.diagonal(dim1=1, dim2=2).add_(penalty)
    factor = torch.linalg.cholesky(gram)
    if in_span:
        return torch.bmm(inputs.mT, torch.cholesky_solve(targets, factor))
    return torch.cholesky_solve(torch.bmm(inputs.mT, targets), factor)
