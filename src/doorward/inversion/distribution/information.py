"""Mutual information by a statistics network (MINE), for many lanes at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

Tensors = dict[str, Tensor]
SLOPE = 0.2  # of the leaky rectifiers, as the authors of MESA have it


def make_layer(lanes: int, inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weights ``[lanes, inputs, outputs]`` and biases ``[lanes, 1, outputs]``, uniform in +-1 / sqrt(inputs)."""
    bound = 1 / math.sqrt(inputs)
    weight = (torch.rand(lanes, inputs, outputs, generator=generator) * 2 - 1) * bound
    return weight, (torch.rand(lanes, 1, outputs, generator=generator) * 2 - 1) * bound


def make_statistics(lanes: int, first: int, second: int, width: int, generator: torch.Generator) -> Tensors:
    """Statistics networks T(x, y): one linear layer per argument, summed, a hidden layer, one number.

    Args:
        first, second: dimensions of x and y.
        width: of both hidden layers.
    """
    x, bias = make_layer(lanes, first, width, generator)
    y, _ = make_layer(lanes, second, width, generator)
    hidden, hidden_bias = make_layer(lanes, width, width, generator)
    out, out_bias = make_layer(lanes, width, 1, generator)
    return {
        "t_x": x, "t_y": y, "t_bias": bias, "t_hidden": hidden, "t_hidden_bias": hidden_bias,
        "t_out": out, "t_out_bias": out_bias,
    }  # fmt: skip


def statistics(net: Tensors, x: Tensor, y: Tensor, shuffled: Tensor) -> tuple[Tensor, Tensor]:
    """T of the joint pairs (x, y) and of the independent ones (x, shuffled), ``[lanes, B]`` each.

    Args:
        x: ``[lanes, B, first]``.
        y, shuffled: ``[lanes, B, second]``.

    The layer of x is shared by both.
    """
    of_x = torch.baddbmm(net["t_bias"], x, net["t_x"])

    def rest(other: Tensor) -> Tensor:
        hidden = functional.leaky_relu(torch.baddbmm(of_x, other, net["t_y"]), SLOPE)
        hidden = functional.leaky_relu(torch.baddbmm(net["t_hidden_bias"], hidden, net["t_hidden"]), SLOPE)
        return torch.baddbmm(net["t_out_bias"], hidden, net["t_out"])[..., 0]

    return rest(y), rest(shuffled)


def bound(joint: Tensor, independent: Tensor) -> Tensor:
    """Donsker and Varadhan's lower bound on the mutual information in nats, ``[lanes]`` of ``[lanes, B]``."""
    return joint.mean(1) - independent.logsumexp(1) + math.log(independent.shape[1])


def trainable_bound(joint: Tensor, independent: Tensor, average: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """The bound with the gradient that Belghazi et al. 2018 correct for its bias (section 3.2), and the new average.

    Args:
        average: log of the moving average of mean exp T over the independent pairs, ``[lanes]``.
        rate: weight of this batch in it.

    The value is that of `bound`; the gradient of its second term is divided by the moving average.
    """
    inside = independent.logsumexp(1) - math.log(independent.shape[1])
    moved = torch.logaddexp(average + math.log1p(-rate), inside.detach() + math.log(rate))
    second = (inside - moved).exp()
    return joint.mean(1) - second + (second - inside).detach(), moved
