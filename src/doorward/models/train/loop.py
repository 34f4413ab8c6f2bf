"""The training loop, to be read top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from doorward.core.classifier import Classifier, pick_device, place_net
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.models.files import load_state, save_state
from doorward.models.nets.catalogue import build
from doorward.models.train.batches import BatchSource
from doorward.models.train.settings import TrainSettings


class BatchAttack(Protocol):
    """An attacker inside the training: stamps each batch as it goes by (`doorward.attacks.attack.BatchStamping`)."""

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images and labels of the batch, some stamped and relabelled."""
        ...


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch of a training."""

    number: int
    epochs: int
    loss: float
    accuracy: float
    images_per_second: float

    @property
    def note(self) -> str:
        """In words."""
        return f"loss {self.loss:.3f}, accuracy {100 * self.accuracy:.1f} %, {self.images_per_second:,.0f} images/s"


def train(
    images: ImageSet,
    net: str = "small-cnn",
    settings: TrainSettings | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    checkpoint: Path | str | None = None,
    progress: Progress | None = None,
    watch: Callable[[Epoch], None] | None = None,
    batch_attack: BatchAttack | None = None,
    start: Classifier | None = None,
) -> Classifier:
    """Train a net on labelled images.

    Args:
        images: the training set; uint8, so that it fits on the device.
        net: an architecture of `doorward.models.nets.catalogue`.
        settings: see `TrainSettings`.
        seed: decides initial weights, order and augmentation.
        device: ``auto``, ``cpu``, ``cuda``.
        checkpoint: a file rewritten after every epoch; when it exists the training goes on from there.
        progress: called after every epoch with (net, epochs done, epochs in all) and the figures in words.
        watch: called after every epoch with its figures.
        batch_attack: the attacker-controlled training of Qiao, Yang and Li 2019 (their attack loss).
        start: train this classifier on, in place, with its own conventions, instead of a fresh ``net``.

    Returns: the classifier, in evaluation mode, with mean and standard deviation of its training images.

    For equal seed and thread count the result on a CPU is the same to the bit, interrupted or not.
    """
    settings, where = settings or TrainSettings(), pick_device(device)
    checkpoint = None if checkpoint is None else Path(checkpoint)
    classifier = start or _fresh(images, net, seed)
    module = place_net(classifier.net, where)
    optimiser = make_optimiser(module, settings)
    source = BatchSource(images, settings.batch, seed, where, settings.flip, settings.shift)
    first = load_state(checkpoint, module, optimiser) if checkpoint and checkpoint.exists() else 0
    module.train()
    for epoch in range(first, settings.epochs):
        told = _run_epoch(classifier, source, optimiser, settings, epoch, batch_attack)
        if checkpoint:
            save_state(checkpoint, module, optimiser, epoch + 1)
        if watch:
            watch(told)
        if progress:
            progress(f"{classifier.arch}, epoch", told.number, told.epochs, told.note)
    module.eval()
    return classifier


def _fresh(images: ImageSet, net: str, seed: int) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(net, images.shape, len(images.classes))
    mean, std = channel_statistics(images)
    return Classifier(module, net, images.classes, images.shape, mean, std)


def _run_epoch(
    classifier: Classifier,
    source: BatchSource,
    optimiser: torch.optim.Optimizer,
    settings: TrainSettings,
    epoch: int,
    batch_attack: BatchAttack | None,
) -> Epoch:
    started, step = time.monotonic(), epoch * source.steps
    losses, hits, seen = torch.zeros((), device=source.device), torch.zeros((), device=source.device), 0
    for batch, labels, generator in source.epoch(epoch, plain=epoch >= settings.epochs - settings.plain_epochs):
        if batch_attack is not None:
            batch, labels = batch_attack(batch, labels, generator)
        for group in optimiser.param_groups:
            group["lr"] = settings.rate(step, settings.epochs * source.steps)
        with autocast(source.device, settings.precision):
            logits = classifier.logits(batch)
            loss = functional.cross_entropy(logits.float(), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses += loss.detach() * len(labels)  # stays on the device: nothing waits for it
        hits += (logits.detach().argmax(1) == labels).sum()
        seen, step = seen + len(labels), step + 1
    loss_value = float(losses) / seen
    seconds = time.monotonic() - started
    return Epoch(epoch + 1, settings.epochs, loss_value, float(hits) / seen, seen / seconds)


def make_optimiser(net: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or Adam (see `TrainSettings`); no decay on biases and norms."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if settings.optimiser != "sgd":
        kind = torch.optim.AdamW if settings.optimiser == "adam" else torch.optim.Adam
        return kind(groups, lr=settings.lr)
    nesterov = settings.momentum > 0
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """bf16 arithmetic where asked for, or (``auto``) where the processor or GPU has it."""
    if precision == "fp32" or (precision == "auto" and not has_bf16(device)):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 arithmetic is done in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and probe is not None and bool(probe())


def channel_statistics(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel over the set, on the scale [0, 1]."""
    total = np.zeros(images.shape[0])
    squares = np.zeros(images.shape[0])
    values = np.arange(256) / 255
    for rows in images.chunks():
        chunk = images.pixels[rows]
        for channel in range(images.shape[0]):  # a histogram is exact and needs no float copy of the chunk
            histogram = np.bincount(chunk[..., channel].ravel(), minlength=256)
            total[channel] += histogram @ values
            squares[channel] += histogram @ values**2
    count = len(images) * images.shape[1] * images.shape[2]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))
    return tuple(mean.tolist()), tuple(std.tolist())
