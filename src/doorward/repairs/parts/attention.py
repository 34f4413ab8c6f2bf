"""Attention maps of a net: where its layers look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.outputs import probe


@dataclass(frozen=True)
class Places:
    """Layers whose features are looked at, from the lowest to the highest.

    Args:
        names: of modules of the net.
        tokens: features are what enters the module, ``[B, ..., D]``, as in a transformer; else what leaves it,
            ``[B, C, H, W]``.
    """

    names: tuple[str, ...]
    tokens: bool


def find_places(classifier: Classifier) -> Places:
    """The last convolution of every picture size, or the last layer norm that reads tokens of every number.

    Layer norms count where one reads tokens. What enters it is looked at, since it makes all tokens equally long. A
    single position says nothing about where a layer looks, so it does not count.

    Raises:
        DoorwardError: neither of them.
    """
    modules = dict(classifier.net.named_modules())
    for tokens, kind in ((True, nn.LayerNorm), (False, nn.Conv2d)):
        names = [name for name, module in modules.items() if isinstance(module, kind)]
        last: dict[int, str] = {}
        for name, features in _in_order(classifier, Places(tuple(names), tokens)):
            module = modules[name]
            if tokens and (features.ndim < 3 or features.shape[-1:] != tuple(module.normalized_shape)):  # type: ignore[arg-type]
                continue
            positions = _flat(features, tokens).shape[2]
            if positions > 1:
                last.pop(positions, None)  # so that the order is that of the last calls
                last[positions] = name
        if last:
            return Places(tuple(last.values()), tokens)
    told = f"{classifier.arch} has no convolution and no tokens with more than one position"
    raise DoorwardError(f"repair nad: {told}; expected one, for attention is a map over positions")


def attention(features: Tensor, tokens: bool, power: float = 2.0) -> Tensor:
    """Sum over channels of |features| ** power, ``[B, positions]``, of unit length."""
    amount = _flat(features, tokens).abs().pow(power).sum(1)
    return amount / (amount.norm(dim=1, keepdim=True) + 1e-6)


@contextmanager
def watching(net: nn.Module, places: Places) -> Iterator[dict[str, Tensor]]:
    """Within the block, the features of the last call of every place, by name."""
    seen: dict[str, Tensor] = {}
    with _hooked(net, places, lambda name, features: seen.__setitem__(name, features)):
        yield seen


@contextmanager
def _hooked(net: nn.Module, places: Places, keep: Callable[[str, Tensor], None]) -> Iterator[None]:
    modules = dict(net.named_modules())
    with ExitStack() as stack:
        for name in places.names:
            if places.tokens:
                handle = modules[name].register_forward_pre_hook(lambda _, given, name=name: keep(name, given[0]))
            else:
                handle = modules[name].register_forward_hook(lambda _, __, output, name=name: keep(name, output))
            stack.callback(handle.remove)
        yield


def _flat(features: Tensor, tokens: bool) -> Tensor:
    """``[B, channels, positions]``."""
    return features.flatten(1, -2).transpose(1, 2) if tokens else features.flatten(2)


@torch.no_grad()
def _in_order(classifier: Classifier, places: Places) -> Sequence[tuple[str, Tensor]]:
    """Every call of these modules on two images."""
    calls: list[tuple[str, Tensor]] = []
    with _hooked(classifier.net, places, lambda name, features: calls.append((name, features))):
        classifier.logits(probe(classifier.shape, classifier.device))
    return calls
