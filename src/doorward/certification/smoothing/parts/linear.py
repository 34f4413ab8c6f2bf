"""Predictions of linear rules for all trials and all noisy test images in one matrix product, without rounding.

Binary cells: x xor g = x (1 - 2 g) + g, so the score w . (x xor g) is x . (w (1 - 2 g)) + w . g. The test images stay
as they are, and the noise of a trial goes into its weights: one product for all trials.

The weights are whole numbers whose absolute sum stays below 2^24 (2^53), so every partial sum is a whole number that
float32 (float64) holds exactly. The order of summation cannot matter: the same votes for any batch, any processor and
any library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.certification.smoothing.task import NoisyBlock
from doorward.core.errors import DoorwardError

Floats = NDArray[np.floating[Any]]
NEVER = -float(1 << 50)  # the bias of a class that is not predicted
_FLOAT32_EXACT, _FLOAT64_EXACT = 1 << 24, 1 << 53


def predict(block: NoisyBlock, weights: Floats, bias: Floats) -> NDArray[np.uint8]:
    """The class with the largest score weights . x' + bias; the lowest such class on a tie.

    Args:
        weights: whole numbers ``[B, K, cells]``, float32 when below 2^23, else float64; bias: whole numbers ``[B, K]``.

    Returns:
        uint8 ``[B, m]``, the predicted class of each noisy test image in each trial.
    """
    weights = weights[:, 1:] - weights[:, :1]  # scores against those of class 0
    bias = np.clip((bias[:, 1:] - bias[:, :1]).astype(np.float64), -(2.0**51), 2.0**51)
    largest = int(np.abs(weights).sum(axis=2, dtype=np.float64).max()) * (block.task.domain - 1) + 1
    if largest >= _FLOAT64_EXACT // 2:
        raise DoorwardError(f"certify: linear scores up to {largest}; expected less than 2^52")
    weights = weights.astype(np.float32 if largest < _FLOAT32_EXACT else np.float64, copy=False)
    scores = _binary_scores if block.task.domain == 2 else _dense_scores
    products, bias = scores(block, weights, bias)
    if weights.shape[1] == 1:  # w . x' > -bias; beyond the largest product the sign is settled
        limit = torch.from_numpy(np.clip(-bias, -largest, largest).astype(weights.dtype)).to(products.device)
        return (products > limit[:, :, None]).view(torch.uint8)[:, 0].cpu().numpy()
    total = products.to(torch.float64) + torch.from_numpy(bias).to(products.device)[:, :, None]
    best, label = total.max(dim=1)  # the first of the largest
    return torch.where(best > 0, label + 1, 0).to(torch.uint8).cpu().numpy()


def to_whole_numbers(weights: NDArray[np.float64], bias: NDArray[np.float64], top: int = 1) -> tuple[Floats, Floats]:
    """Weights ``[B, K, cells]`` and bias ``[B, K]`` in units of a power of two per trial, as fine as float32 allows.

    ``top`` is the largest value of a cell.
    """
    weights, bias = weights - weights[:, :1], bias - bias[:, :1]
    bound = top * np.abs(weights).sum(axis=2).max(axis=1)
    exponent = np.floor(np.log2((_FLOAT32_EXACT // 2) / np.maximum(bound, 1e-30))).astype(np.int64)
    whole = np.rint(np.ldexp(weights, exponent[:, None, None])).astype(np.float32)
    return whole, np.rint(np.clip(np.ldexp(bias, exponent[:, None]), NEVER, -NEVER))


def _binary_scores(block: NoisyBlock, weights: Floats, bias: Floats) -> tuple[torch.Tensor, Floats]:
    """Products ``[B, K - 1, m]`` with the test images as they are, and the bias with the noise's share in it."""
    sign = 1 - 2 * block.gamma.astype(weights.dtype)
    signed = weights * sign[:, None, :]
    bias = bias + (weights.sum(axis=2, dtype=np.float64) - signed.sum(axis=2, dtype=np.float64)) / 2
    active = block.task.active_cells  # a cell that is 0 in every test image adds nothing
    flat = torch.from_numpy(signed.take(active, axis=2).reshape(-1, len(active))).to(block.device)
    tests = torch.from_numpy(block.task.tests_by_cell).to(flat)
    return (flat @ tests).unflatten(0, weights.shape[:2]), bias


def _dense_scores(block: NoisyBlock, weights: Floats, bias: Floats) -> tuple[torch.Tensor, Floats]:
    """Products ``[B, K - 1, m]`` with the noisy test images of every trial; for more than two values per cell."""
    of_trial = torch.from_numpy(weights).to(block.device)
    noisy = (torch.from_numpy(block.tests(trial)).to(of_trial) for trial in range(len(block)))
    return torch.stack([of_trial[trial] @ tests.T for trial, tests in enumerate(noisy)]), bias
