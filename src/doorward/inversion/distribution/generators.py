"""Generators of triggers: one small network per lane, all in one batched product."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from doorward.inversion.distribution.information import SLOPE, make_layer

Tensors = dict[str, Tensor]
LAYERS = 4
_EPSILON = 1e-5


def make_generators(lanes: int, noise: int, outputs: int, width: int, generator: torch.Generator) -> Tensors:
    """Four linear layers, the noise fed to them in four quarters; batch norm after the first three."""
    quarter, made = noise // LAYERS, {}
    for layer in range(LAYERS):
        inputs = quarter + (width if layer else 0)
        out = width if layer < LAYERS - 1 else outputs
        made[f"g_{layer}"], made[f"g_{layer}_bias"] = make_layer(lanes, inputs, out, generator)
        if layer < LAYERS - 1:
            made[f"g_{layer}_scale"] = torch.ones(lanes, 1, width)
            made[f"g_{layer}_shift"] = torch.zeros(lanes, 1, width)
    return made


def generate(net: Tensors, noise: Tensor) -> Tensor:
    """Points ``[lanes, B, outputs]`` in (0, 1) of noise ``[lanes, B, noise]``.

    Batch norm uses the statistics of the batch, or those in ``g_i_mean`` and ``g_i_deviation`` once `settled` put
    them there.
    """
    hidden = None
    for layer, part in enumerate(noise.chunk(LAYERS, dim=2)):
        inputs = part if hidden is None else torch.cat([hidden, part], dim=2)
        hidden = torch.baddbmm(net[f"g_{layer}_bias"], inputs, net[f"g_{layer}"])
        if layer < LAYERS - 1:
            hidden = functional.leaky_relu(_normalise(net, layer, hidden), SLOPE)
    assert hidden is not None
    return hidden.sigmoid()


def _normalise(net: Tensors, layer: int, hidden: Tensor) -> Tensor:
    mean, deviation = net.get(f"g_{layer}_mean"), net.get(f"g_{layer}_deviation")
    if mean is None or deviation is None:
        variance, mean = torch.var_mean(hidden, dim=1, keepdim=True, correction=0)
        deviation = (variance + _EPSILON).sqrt()
    return (hidden - mean) / deviation * net[f"g_{layer}_scale"] + net[f"g_{layer}_shift"]


@torch.no_grad()
def settled(net: Tensors, noise: Tensor) -> Tensors:
    """The generators with the batch statistics of a large noise sample ``[lanes, B, noise]`` written into them."""
    net, hidden = dict(net), None
    for layer, part in enumerate(noise.chunk(LAYERS, dim=2)[: LAYERS - 1]):
        inputs = part if hidden is None else torch.cat([hidden, part], dim=2)
        before = torch.baddbmm(net[f"g_{layer}_bias"], inputs, net[f"g_{layer}"])
        variance, mean = torch.var_mean(before, dim=1, keepdim=True, correction=0)
        net[f"g_{layer}_mean"], net[f"g_{layer}_deviation"] = mean, (variance + _EPSILON).sqrt()
        hidden = functional.leaky_relu(_normalise(net, layer, before), SLOPE)
    return net
