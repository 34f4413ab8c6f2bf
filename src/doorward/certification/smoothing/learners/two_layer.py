"""The paper's learner: a two-layer ReLU network, trained by the thousand.

Full-batch gradient descent never leaves the span of the training images: W1 = W0 + S X with S of shape [hidden, n].
The hidden pre-activations A = X W1^T then move by A <- A - rate (X X^T) dA, so a step costs n n H instead of n d H, and
W1 is built once, after the last step. The result is that of ordinary training, up to float rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from doorward.certification.smoothing.task import NoisyBlock
from doorward.core.methods import Settings, method

_CACHED = 8  # trials trained side by side on a processor: their activations stay in its caches
_TEST_FLOATS = 1 << 20  # hidden activations held at a time while predicting


class TwoLayer(Settings):
    """Width, training length, rate, and scale of the initial weights.

    Pixels run from -1 to 1, less the mean noisy training image. The defaults were chosen by certified accuracy at
    radius 2 on digits of the MNIST test file, which no reported split uses.
    """

    hidden: int = Field(128, ge=1, le=1 << 14, description="width of the hidden layer")
    steps: int = Field(10, ge=0, description="full-batch gradient steps")
    learning_rate: float = Field(0.3, gt=0, description="of gradient descent")
    init: float = Field(0.2, ge=0, description="scale of the initial weights")


@dataclass(frozen=True)
class Weights:
    """One network per trial: first layer ``[B, H, cells]`` and ``[B, H]``, second ``[B, K, H]`` and ``[B, K]``."""

    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor


@method("certify", "two-layer", settings=TwoLayer, given={"images", "labels", "noise"})
def two_layer(block: NoisyBlock, settings: TwoLayer) -> NDArray[np.uint8]:
    """Predict with a two-layer ReLU network: cross-entropy, full-batch gradient descent.

    Wang, Cao, Jia and Gong 2020, section 4 ("a two-layer neural network"; width and training are not given there).
    Fails when: training goes on until the flipped labels are learnt by heart.

    Returns: uint8 ``[B, m]``, predicted classes.
    """
    return np.concatenate([_train_and_predict(part, settings) for part in block.parts(_CACHED)])


def _train_and_predict(block: NoisyBlock, settings: TwoLayer) -> NDArray[np.uint8]:
    pixels = torch.from_numpy(block.pixels).to(block.device, torch.float32)
    mean = pixels.sum(dim=1, keepdim=True) / pixels.shape[1]  # a sum of whole numbers: exact in any order
    scale = 2 / (block.task.domain - 1)
    labels = torch.from_numpy(block.labels).to(block.device)
    trained = train(initial_weights(block, settings), pixels.sub_(mean).mul_(scale), labels, settings)
    shift = torch.bmm(mean * scale - 1, trained.first.mT)[:, 0]  # W (x - mean) + b = W x + (b - W mean)
    return predict(block, replace(trained, first_bias=trained.first_bias - shift))


def initial_weights(block: NoisyBlock, settings: TwoLayer) -> Weights:
    """Weights uniform in +-init / sqrt(inputs) as `torch.nn.Linear` has them, on a grid of 2^16 values; biases 0."""
    cells, hidden, classes = block.task.images.shape[1], settings.hidden, block.task.classes
    count = hidden * cells + classes * hidden
    drawn = block.random_words(-(-count // 4)).view(np.int16)[:, :count]  # -2^15 .. 2^15 - 1, centred by adding 1/2
    unit = torch.from_numpy(drawn).to(block.device, torch.float32).add_(0.5)
    first = unit[:, : hidden * cells].reshape(len(block), hidden, cells)
    second = unit[:, hidden * cells :].reshape(len(block), classes, hidden)
    zeros = torch.zeros(len(block), hidden + classes, device=block.device)
    scale = settings.init / (1 << 15)
    return Weights(first * (scale / cells**0.5), zeros[:, :hidden], second * (scale / hidden**0.5), zeros[:, hidden:])


def train(start: Weights, pixels: Tensor, labels: Tensor, settings: TwoLayer) -> Weights:
    """All networks after ``steps`` steps of full-batch gradient descent on the mean cross-entropy.

    Args:
        pixels: float ``[B, n, cells]``; labels: int64 ``[B, n]``.
    """
    n, rate = pixels.shape[1], settings.learning_rate
    in_span = n <= pixels.shape[2]  # with more images than cells, the span is everything and saves nothing
    target = torch.nn.functional.one_hot(labels, start.second.shape[1]).to(pixels.dtype).mT.contiguous()
    hidden_in = torch.baddbmm(start.first_bias[:, None, :], pixels, start.first.mT)  # A, [B, n, H]
    # The bias is the weight of one more pixel, which is 1 in every image.
    gram = torch.baddbmm(torch.ones((), device=pixels.device), pixels, pixels.mT) if in_span else None
    first, second, second_bias = start.first, start.second.clone(), start.second_bias.clone()
    total, hidden_out = torch.zeros_like(hidden_in), torch.empty_like(hidden_in)
    gradient = torch.empty_like(hidden_in)
    for _ in range(settings.steps):
        torch.clamp_min(hidden_in, 0, out=hidden_out)
        logits = torch.baddbmm(second_bias[:, :, None], second, hidden_out.mT)  # [B, K, n]
        error = torch.softmax(logits, dim=1).sub_(target).mul_(1 / n)
        torch.bmm(error.mT, second, out=gradient)
        torch.ops.aten.threshold_backward.grad_input(gradient, hidden_in, 0, grad_input=gradient)  # where A > 0
        second.baddbmm_(error, hidden_out, alpha=-rate)
        second_bias.sub_(error.sum(dim=2), alpha=rate)
        total.add_(gradient)
        if gram is not None:
            hidden_in.baddbmm_(gram, gradient, alpha=-rate)
        else:
            first = torch.baddbmm(first, gradient.mT, pixels, alpha=-rate)
            bias = start.first_bias - rate * total.sum(dim=1)
            torch.baddbmm(bias[:, None, :], pixels, first.mT, out=hidden_in)
    if gram is not None:
        first = torch.baddbmm(first, total.mT, pixels, alpha=-rate)
    return Weights(first, start.first_bias - rate * total.sum(dim=1), second, second_bias)


def predict(block: NoisyBlock, networks: Weights) -> NDArray[np.uint8]:
    """Predicted classes of all noisy test images, uint8 ``[B, m]``, in an order of summation that is fixed.

    First-layer weights become integers in units of a power of two per hidden unit, fine enough that nothing else
    rounds (see `linear`); the second layer adds hidden units in pairs, by whole arrays. So a vote depends neither on
    the batch nor on the other test images.
    """
    images, hidden = len(block.task.tests), networks.first.shape[1]
    columns = max(1, min(images, _TEST_FLOATS // hidden))
    rows = max(1, _TEST_FLOATS // (hidden * columns))
    second, offset = (t[:, 1:] - t[:, :1] for t in (networks.second, networks.second_bias))  # against class 0
    votes = np.empty((len(block), images), dtype=np.uint8)
    for row in range(0, len(block), rows):
        some = slice(row, min(row + rows, len(block)))
        pre_activation, unit = _first_layer(block, some, networks.first[some], networks.first_bias[some])
        outgoing = (second[some] * unit[:, None])[..., None]
        for column in range(0, images, columns):
            which = slice(column, column + columns)
            active = pre_activation(which).clamp_min_(0)
            scores = torch.stack([_sum_pairs(active * outgoing[:, k]) for k in range(outgoing.shape[1])], dim=1)
            scores.add_(offset[some, :, None])
            best, label = scores.max(dim=1)  # the first of the largest
            votes[some, which] = torch.where(best > 0, label + 1, 0).to(torch.uint8).cpu().numpy()
    return votes


def _first_layer(
    block: NoisyBlock, some: slice, first: Tensor, bias: Tensor
) -> tuple[Callable[[slice], Tensor], Tensor]:
    """A function from a slice of test images to pre-activations ``[B, H, images]``, and their unit ``[B, H]``.

    Inputs are odd or even multiples of 1 / (d - 1) from -1 to 1; counted in those, every term is an integer.
    """
    task, top = block.task, block.task.domain - 1
    limit = 1 << 23 if top == 1 else 1 << 50
    kind = torch.float32 if top == 1 else torch.float64
    bound = top * (first.abs().sum(dim=2) + bias.abs()).double().clamp_min(1e-30)
    exponent = torch.floor(torch.log2((limit - top * first.shape[2]) / bound)).to(torch.int32)
    unit = torch.ldexp(torch.ones_like(bound), -exponent)
    integers = (first.to(kind) / unit.to(kind)[:, :, None]).round_()
    offset = (bias * top / unit).round_().to(kind)
    unit = (unit / top).to(first.dtype)
    gamma = torch.from_numpy(block.gamma[some]).to(block.device)
    if top > 1:

        def dense(which: slice) -> Tensor:
            tests = np.stack([block.tests(trial)[which] for trial in range(some.start, some.stop)])
            inputs = torch.from_numpy(tests).to(block.device, kind).mul_(2).sub_(top)
            return torch.baddbmm(offset[:, :, None], integers, inputs.mT)

        return dense, unit
    integers *= (2 - 4 * gamma.to(kind))[:, None, :]  # the noise goes into the weights: 2 (x xor g) - 1 = (1-2g)(2x-1)
    offset = (offset - integers.sum(dim=2) / 2)[:, :, None]
    flat = integers[:, :, torch.from_numpy(task.active_cells).to(block.device)].flatten(0, 1)
    tests = torch.from_numpy(task.tests_by_cell).to(block.device)

    def folded(which: slice) -> Tensor:
        return (flat @ tests[:, which]).unflatten(0, offset.shape[:2]).add_(offset)

    return folded, unit


def _sum_pairs(values: Tensor) -> Tensor:
    """Sum over axis 1, halving it again and again: one order of summation whatever the other axes are."""
    while (size := values.shape[1]) > 1:
        half = size // 2
        summed = values[:, :half] + values[:, half : 2 * half]
        values = summed if size % 2 == 0 else torch.cat([summed, values[:, -1:]], dim=1)
    return values[:, 0]
