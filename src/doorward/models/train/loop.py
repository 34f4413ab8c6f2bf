"""The training loop, to be read top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from doorward.core.arguments import check_images
from doorward.core.classifier import Classifier, pick_device, place_net
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.core.settings import build_settings
from doorward.models.files import load_state, save_state
from doorward.models.nets.catalogue import NETS
from doorward.models.open.architectures import Named
from doorward.models.train.batches import BatchSource
from doorward.models.train.settings import TrainSettings, default_recipe
from doorward.models.train.start import channel_statistics as channel_statistics
from doorward.models.train.start import fresh
from doorward.models.train.teacher import Teacher
from doorward.models.train.workers import Workers, join


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
    def figures(self) -> tuple[float, float, float]:
        """What a training state keeps."""
        return self.loss, self.accuracy, self.images_per_second

    @property
    def note(self) -> str:
        """In words."""
        return f"loss {self.loss:.3f}, accuracy {100 * self.accuracy:.1f} %, {self.images_per_second:,.0f} images/s"


def train(
    images: ImageSet,
    net: Named = "small-cnn",
    settings: TrainSettings | Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    checkpoint: Path | str | None = None,
    progress: Progress | None = None,
    watch: Callable[[Epoch], None] | None = None,
    batch_attack: BatchAttack | None = None,
    start: Classifier | None = None,
    teacher: Teacher | None = None,
    augment: Literal["none", "imagenet"] = "none",
) -> Classifier:
    """Train a net on labelled images.

    Args:
        images: the training set; uint8, so that it fits on the device.
        net: a built-in architecture, ``FILE.py:factory``, ``timm:NAME`` or ``hf:FOLDER`` (its architecture, not its
            weights); or a module, which is copied with its weights, or a factory: see `find_architecture`.
        settings: see `TrainSettings`, or names with values; for a net that is not built in `default_recipe` where
            nothing is said.
        seed: decides initial weights, order and augmentation.
        device: ``auto``, ``cpu``, ``cuda``.
        checkpoint: a file rewritten after every epoch; when it exists the training goes on from there.
        progress: called after every epoch with (net, epochs done, epochs in all) and the figures in words.
        watch: called after every epoch with its figures.
        batch_attack: the attacker-controlled training of Qiao, Yang and Li 2019 (their attack loss).
        start: train this classifier on, in place, with its own conventions, instead of a fresh ``net``.
        teacher: a classifier whose answers on the images, before ``batch_attack``, are part of the loss.
        augment: ``imagenet`` trains on random parts of the images, half of them mirrored (`crop_and_flip`).

    Returns: the classifier, in evaluation mode, with mean and standard deviation of its training images.

    For equal seed and thread count the result on a CPU is the same to the bit, interrupted or not. Processes that
    ``torchrun`` started train together (DistributedDataParallel), each with a part of every batch; the first one
    writes the checkpoint.
    """
    check_images("train", "images", images)
    if isinstance(settings, Mapping):
        settings = build_settings(TrainSettings, "train", settings)
    if settings is None:
        own = start is None and not (isinstance(net, str) and net in NETS)
        settings = TrainSettings(**default_recipe(net)) if own else TrainSettings()
    workers, where = join(pick_device(device))
    checkpoint = None if checkpoint is None or not workers.writes else Path(checkpoint)
    classifier = start or fresh(images, net, seed)
    module = place_net(classifier.net, where)
    optimiser = make_optimiser(module, settings)
    share, crop = (workers.number, workers.count), augment == "imagenet"
    source = BatchSource(images, settings.batch, seed, where, settings.flip, settings.shift, crop, share)
    first, figures = load_state(checkpoint, module, optimiser) if checkpoint and checkpoint.exists() else (0, [])
    first = _agree(workers, optimiser, first)
    if watch and figures and first == settings.epochs:  # killed after its last epoch
        watch(Epoch(first, settings.epochs, *figures))
    module.train()
    trained = replace(classifier, net=workers.wrap(module))
    for epoch in range(first, settings.epochs):
        told = run_epoch(trained, source, optimiser, settings, epoch, batch_attack, workers, teacher)
        if checkpoint:
            save_state(checkpoint, module, optimiser, epoch + 1, told.figures)
        if watch:
            watch(told)
        if progress:
            progress(f"{classifier.arch}, epoch", told.number, told.epochs, told.note)
    module.eval()
    return classifier


def _agree(workers: Workers, optimiser: torch.optim.Optimizer, epoch: int) -> int:
    """Give every process the optimiser's state of the first, which read the checkpoint; its number of epochs."""
    if workers.count > 1:
        epoch, state = workers.first((epoch, optimiser.state_dict()))
        if epoch and not workers.writes:
            optimiser.load_state_dict(state)
    return epoch


def run_epoch(
    classifier: Classifier,
    source: BatchSource,
    optimiser: torch.optim.Optimizer,
    settings: TrainSettings,
    epoch: int,
    batch_attack: BatchAttack | None = None,
    workers: Workers = Workers(),  # noqa: B008
    teacher: Teacher | None = None,
) -> Epoch:
    """Train for one epoch; its figures are those of all processes together."""
    started, step = time.monotonic(), epoch * source.steps
    losses, hits, seen = torch.zeros((), device=source.device), torch.zeros((), device=source.device), 0
    for batch, labels, generator in source.epoch(epoch, plain=epoch >= settings.epochs - settings.plain_epochs):
        plain = batch
        if batch_attack is not None:
            batch, labels = batch_attack(batch, labels, generator)
        for group in optimiser.param_groups:
            group["lr"] = settings.rate(step, settings.epochs * source.steps)
        with autocast(source.device, settings.precision):
            logits = classifier.logits(batch)
            loss = functional.cross_entropy(logits.float(), labels)
            if teacher is not None:
                loss = teacher.mixed(loss, logits, plain)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses += loss.detach() * len(labels)  # stays on the device: nothing waits for it
        hits += (logits.detach().argmax(1) == labels).sum()
        seen, step = seen + len(labels), step + 1
    loss_sum, right = workers.total(torch.stack([losses, hits.to(losses)])).tolist()
    seconds, seen = time.monotonic() - started, seen * workers.count
    return Epoch(epoch + 1, settings.epochs, loss_sum / seen, right / seen, seen / seconds)


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
