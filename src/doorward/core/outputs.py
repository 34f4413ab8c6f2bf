"""What networks of others give back, and what enters their head: always one tensor each."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_TOKENS = ("cls_token", "class_token", "class_embedding")


def logits_of(output: Any) -> Any:
    """The logits in a net's output: the tensor itself, ``.logits``, ``["logits"]``, or the first tensor of a tuple.

    Anything else comes back as it is, for whoever checks outputs to refuse.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits
    if isinstance(output, Mapping):
        named = output.get("logits")
        return named if isinstance(named, Tensor) else next((v for v in output.values() if _is_logits(v)), output)
    if isinstance(output, tuple | list):
        return next((v for v in output if _is_logits(v)), output)
    return output


def _is_logits(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2


def giving_logits(net: nn.Module) -> nn.Module:
    """The same net (same weights, same names of layers and tensors) whose call gives logits and nothing else.

    The net itself goes on giving what it gave: the returned one is a shallow copy with a hook of its own.
    """
    if gives_logits(net):
        return net
    twin = copy.copy(net)
    twin._forward_hooks = OrderedDict(net._forward_hooks)
    twin.register_forward_hook(_unwrap)
    return twin


def gives_logits(net: nn.Module) -> bool:
    """Whether the net came from `giving_logits`, or is a copy of one that did."""
    return _unwrap in net._forward_hooks.values()


def _unwrap(_: nn.Module, __: Any, output: Any) -> Any:
    return logits_of(output)


def has_class_token(net: nn.Module) -> bool:
    """Whether the net puts a class token before the tokens of the picture, by the usual names of its weight."""
    return any(name.rsplit(".", 1)[-1] in _TOKENS for name, _ in net.named_parameters())


def pooled(features: Tensor, layer: nn.Module, *, class_token: bool) -> Tensor:
    """What enters a head, as one vector per image ``[B, t]``.

    Args:
        features: ``[B, t]``; tokens ``[B, T, t]``: the first where there is a class token, else their mean; a picture:
            its global average, of ``[B, H, W, t]`` before a linear layer, of ``[B, t, H, W]`` before any other.
        layer: the head.
    """
    if features.ndim == 3:
        return features[:, 0] if class_token else features.mean(1)
    if features.ndim == 4:
        return features.mean((1, 2) if isinstance(layer, nn.Linear) else (2, 3))
    return features.flatten(1)


def find_head(net: nn.Module, classes: int) -> str | None:
    """Name of the layer that makes the logits: the last linear layer, or else 1x1 convolution, of so many outputs;
    else the last linear layer; None without one."""
    linear = {name: m for name, m in net.named_modules() if isinstance(m, nn.Linear)}
    convolutions = {name: m for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)}
    fitting = [name for name, m in linear.items() if m.out_features == classes]
    fitting = fitting or [name for name, m in convolutions.items() if m.out_channels == classes]
    return (fitting or list(linear) or [None])[-1]  # type: ignore[list-item]


def probe(shape: tuple[int, int, int], device: torch.device | str) -> Tensor:
    """Two fixed random images ``[2, C, H, W]`` in [0, 1]."""
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(device)
