"""Which inputs of a linear layer come from which channel of the last convolution; found by trying."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float

_PUSH = 1e3  # added to a channel: enough to pass any ReLU, harmless to a copy that is thrown away


@dataclass(frozen=True, eq=False)
class Channels:
    """Channels that can be pruned.

    Args:
        reader: the linear layer that reads them; a channel is pruned by zeroing its columns in the weight.
        columns: bool ``[channels, inputs of the reader]``.
    """

    reader: nn.Linear
    columns: Tensor


def find_channels(classifier: Classifier, images: ImageSet) -> Channels:
    """The channels of the last convolution and the linear layer that reads them.

    Every channel of one image is pushed up and down, one per row of a batch, and the inputs of the linear layers are
    compared: a layer reads the channels when each of its inputs hangs on at most one of them. A net where none does
    (no convolutions; a transformer, whose tokens mix them) has the inputs of its last linear layer for channels.

    Raises:
        DoorwardError: no linear layer, or a last one that reads anything but one vector per image.
    """
    modules = list(classifier.net.modules())
    linear = [m for m in modules if isinstance(m, nn.Linear)]
    convolutions = [m for m in modules if isinstance(m, nn.Conv2d)]
    if not linear:
        raise DoorwardError(f"repair: {classifier.arch} has no linear layer; expected one that reads its channels")
    for reader in linear if convolutions else []:
        columns = _columns(classifier, images, convolutions[-1], reader)
        if columns.any() and int(columns.sum(dim=0).max()) == 1:
            return Channels(reader, columns)
    with torch.inference_mode(), watching_inputs(linear[-1]) as seen:
        classifier.logits(to_float(images.pixels[:1], classifier.device))
    if len(seen) != 1 or seen[0].ndim != 2:
        told = "none reads the channels of its last convolution one by one, and the last reads no vector per image"
        raise DoorwardError(f"repair: linear layers of {classifier.arch}: {told}; expected one that does")
    return Channels(linear[-1], torch.eye(linear[-1].in_features, dtype=torch.bool))


@torch.inference_mode()
def _columns(classifier: Classifier, images: ImageSet, convolution: nn.Conv2d, reader: nn.Linear) -> Tensor:
    """Bool ``[channels, inputs]``: the inputs of the reader that change when a channel is pushed."""
    count = convolution.out_channels
    image = to_float(images.pixels[:1], classifier.device).expand(count, -1, -1, -1)
    found = torch.zeros(count, reader.in_features, dtype=torch.bool)
    for push in (0.0, _PUSH, -_PUSH):
        pushed = push * torch.eye(count, device=classifier.device)[:, :, None, None]
        with _adding(convolution, pushed), watching_inputs(reader) as seen:
            classifier.logits(image)
        if not seen or seen[0].ndim != 2:  # of an attention, which reads its weights itself; or of tokens
            return found
        if push == 0.0:
            plain = seen[0]
        else:
            found |= ((seen[0] - plain).abs() > 1e-3 * (1 + plain.abs())).cpu()
    return found


@contextmanager
def _adding(convolution: nn.Conv2d, pushed: Tensor) -> Iterator[None]:
    handle = convolution.register_forward_hook(lambda _, __, output: output + pushed)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def watching_inputs(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Within the block, every call of ``layer`` appends its input to the list."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()
