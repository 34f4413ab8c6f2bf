"""Fine-pruning."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import Settings, method
from doorward.core.pixels import to_float
from doorward.core.stats import Rate
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from doorward.repairs.parts.channels import Channels, find_channels, watching_inputs
from doorward.repairs.repaired import Repaired, Step

_BATCH = 512


class PruneSettings(Settings):
    """Settings of fine-pruning."""

    drop: float = Field(0.04, ge=0, le=1, description="pruning ends before held-out accuracy falls by more than this")
    held_out: float = Field(0.2, gt=0, lt=1, description="share of the clean images that decides where pruning ends")
    epochs: int = Field(5, ge=0, description="of fine-tuning; 0 prunes alone")
    batch: int = Field(128, ge=2, description="images per step of fine-tuning")
    lr: float = Field(0.01, gt=0, description="learning rate of fine-tuning")
    shift: int = Field(0, ge=0, description="largest shift in pixels, each direction, in fine-tuning")


@method("repair", "prune", settings=PruneSettings, given={"classifier", "clean_images", "seed"})
def prune(classifier: Classifier, clean_images: ImageSet, s: PruneSettings, *, seed: int) -> Repaired:
    """Prune the channels least active on clean images, then fine-tune on clean images.

    Fine-pruning, Liu, Dolan-Gavitt and Garg, RAID 2018, Section 3: channels of the last convolution are pruned in
    increasing order of their mean activation on clean images, until the accuracy on clean validation images falls
    too far; then the pruned net is fine-tuned. Order and fine-tuning use one part of ``clean_images``; where pruning
    ends is decided on the other. Test images take no part. A channel is pruned by zeroing what the next linear layer
    does with it, and stays zero during fine-tuning.

    Args:
        classifier: left as it was.
        clean_images: images known to be clean, with their labels (knowledge that an auditor may not have).
        seed: of the split and of fine-tuning.

    Returns: the classifier; the record holds held-out accuracy as given, pruned, and fine-tuned; ``details`` the
        channels in order of pruning and the held-out accuracy after each.

    Raises:
        DoorwardError: no linear layer reads the channels, images that do not fit, or too few of them.

    Fails when: the backdoor runs through channels that clean images use too (stealthy and adaptive attacks), or the
        clean images are too few to restore the accuracy.
    """
    if (clean_images.shape, clean_images.classes) != (classifier.shape, classifier.classes):
        raise DoorwardError(f"repair prune: {clean_images.name} has other image size or classes than the classifier")
    if int(clean_images.counts().max()) * s.held_out < 1:
        raise DoorwardError(f"repair prune: {len(clean_images)} clean images; expected more, to hold some out")
    fitted, held = clean_images.split(s.held_out, seed)
    repaired = replace(classifier, net=copy.deepcopy(classifier.net).eval())
    channels = find_channels(repaired, fitted)
    order = np.argsort(mean_activation(repaired, channels, fitted.pixels), kind="stable")
    hits = hits_while_pruning(repaired, channels, order, held)
    count = allowed_prunings(hits, len(held), s.drop)
    steps = [Step("as given", Rate(int(hits[0]), len(held)))]
    mask = channels.columns[torch.from_numpy(order[:count].copy())].any(dim=0)
    _zero(channels, mask)
    steps.append(Step(f"{count} of {len(order)} channels pruned", Rate(int(hits[count]), len(held))))
    if s.epochs:
        _fine_tune(repaired, channels, mask, fitted, s, seed)
        steps.append(Step(f"fine-tuned for {s.epochs} epochs", measure_accuracy(repaired, held)))
    details: dict[str, object] = {"order": order.tolist(), "held_out_hits": hits.tolist(), "pruned": count}
    return Repaired(repaired, tuple(steps), details)


@torch.inference_mode()
def mean_activation(classifier: Classifier, channels: Channels, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean of what the reader is given of every channel, ``[channels]``, over uint8 images ``[N, H, W, C]``."""
    total = torch.zeros(channels.columns.shape[1], dtype=torch.float64)
    for start in range(0, len(pixels), _BATCH):
        with watching_inputs(channels.reader) as seen:
            classifier.logits(to_float(pixels[start : start + _BATCH], classifier.device))
        total += seen[0].double().sum(dim=0).cpu()
    columns = channels.columns.double()
    size = columns.sum(dim=1).clamp(min=1)
    return (columns @ total / size / len(pixels)).numpy()


@torch.inference_mode()
def hits_while_pruning(
    classifier: Classifier, channels: Channels, order: NDArray[np.int64], held: ImageSet
) -> NDArray[np.int64]:
    """Held-out images classified rightly after pruning the first 0, 1, 2, ... channels, ``[channels + 1]``.

    Where the reader is the output layer the net is run once, and a channel's part is taken off its logits.
    """
    reader, labels = channels.reader, torch.from_numpy(held.labels)
    inputs, logits = _inputs_and_logits(classifier, channels, held.pixels)
    hits = [int((logits.argmax(1) == labels).sum())]
    weight = reader.weight.detach().clone()
    read = reader(inputs.to(weight)).cpu()
    is_output = read.shape == logits.shape and torch.allclose(read, logits, atol=1e-3)
    for channel in order:
        columns = channels.columns[channel]
        if is_output:
            logits -= inputs[:, columns] @ weight[:, columns].cpu().T
            predicted = logits.argmax(1)
        else:
            reader.weight[:, columns] = 0
            predicted = torch.from_numpy(classifier.predict(held.pixels))
        hits.append(int((predicted == labels).sum()))
    reader.weight.copy_(weight)
    return np.array(hits, dtype=np.int64)


def _inputs_and_logits(classifier: Classifier, channels: Channels, pixels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    inputs, logits = [], []
    for start in range(0, len(pixels), _BATCH):
        with watching_inputs(channels.reader) as seen:
            logits.append(classifier.logits(to_float(pixels[start : start + _BATCH], classifier.device)).cpu())
        inputs.append(seen[0].cpu())
    return torch.cat(inputs), torch.cat(logits)


def allowed_prunings(hits: NDArray[np.int64], trials: int, drop: float) -> int:
    """How many channels go: pruning ends before the first one that costs more than ``drop`` of the accuracy."""
    too_far = np.flatnonzero(hits[0] - hits > drop * trials + 1e-9)
    return int(too_far[0]) - 1 if len(too_far) else len(hits) - 1


def _zero(channels: Channels, mask: Tensor) -> None:
    with torch.no_grad():
        channels.reader.weight[:, mask] = 0


def _fine_tune(
    classifier: Classifier, channels: Channels, mask: Tensor, images: ImageSet, s: PruneSettings, seed: int
) -> None:
    """Train on, in place; a zero weight that gets no gradient is not moved by momentum or decay either."""
    keep = (~mask).to(channels.reader.weight)
    handle = channels.reader.weight.register_hook(lambda gradient: gradient * keep)
    settings = TrainSettings(epochs=s.epochs, batch=s.batch, lr=s.lr, shift=s.shift)
    try:
        train(images, classifier.arch, settings, seed=seed, device=str(classifier.device), start=classifier)
    finally:
        handle.remove()
