"""Nets that an audit trains on parts of the set, and what they decide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from doorward.core.classifier import Classifier, forward_batch, pick_device
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float
from doorward.jobs.processes import limited_threads
from doorward.models.nets.catalogue import NETS
from doorward.models.open.architectures import Named
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings, default_recipe

Labels = NDArray[np.int64]
Pixels = NDArray[np.uint8]
Rows = NDArray[np.bool_]
CHEAPEST = "pooled-cnn"
_STEPS = 300  # of one training at least; more where that is less than three epochs
_EPOCHS = (3, 20)
_SIDE = 48  # pixels of the shorter side at most, of nets that are not of the suspect's kind
_AT_ONCE = 512 << 20  # bytes of pictures of one training, up to which several run at a time
_CHUNK = 4096


def both(images: ImageSet, more: ImageSet | None) -> ImageSet:
    """Two sets as one, without names of single images; the first one where there is no other."""
    if more is None:
        return images
    pixels, labels = (np.concatenate([getattr(one, name) for one in (images, more)]) for name in ("pixels", "labels"))
    return ImageSet(pixels, labels, images.classes, images.name)


class Fits(Protocol):
    """What makes nets for an audit: a `Trainer` anew, `doorward.audits.parts.copies.Copies` from one that is there."""

    def fit(
        self, images: ImageSet, keep: Rows, seed: int, more: ImageSet | None = None, among: Rows | None = None
    ) -> Trained:
        """A net that knows the kept images, or some of them with all those ``among`` them, and ``more``."""

    def fitted(self, pixels: Pixels) -> Pixels:
        """The pictures as its nets take them."""

    def at_once(self, images: ImageSet) -> int:
        """Nets that may be trained at a time, each in a thread of its own."""


@dataclass(frozen=True)
class Trainer:
    """Trains a net on a part of a set, always by the same recipe.

    Args:
        net: architecture; see `doorward.models.open.architectures.find_architecture`.
        settings: of every training.
        shape: height and width that images are shrunk to before they are trained on; None leaves them.
        device: ``auto``, ``cpu``, ``cuda``.
    """

    net: Named
    settings: TrainSettings
    shape: tuple[int, int] | None = None
    device: str = "auto"

    def fit(
        self, images: ImageSet, keep: Rows, seed: int, more: ImageSet | None = None, among: Rows | None = None
    ) -> Trained:
        """Train on all images that are kept (those ``among`` them are no others), and on ``more``."""
        part = both(images.subset(keep), more)
        training = ImageSet(self.fitted(part.pixels), part.labels, part.classes, part.name)
        with limited_threads(1):  # little is lost on free cores, much is gained on busy ones
            net = train(training, self.net, self.settings, seed=seed, device=self.device)
        return Trained(net, self)

    def at_once(self, images: ImageSet) -> int:
        """One per core: an operation of nets this small gains little from a second thread."""
        height, width = self.shape or images.shape[1:]
        bytes_each = len(images) * height * width * images.shape[0]
        small = pick_device(self.device).type == "cpu" and bytes_each <= _AT_ONCE
        return torch.get_num_threads() if small else 1

    def longer(self) -> Trainer:
        """Twice as long: a net learns what an image shows sooner than a rare trigger."""
        return replace(self, settings=self.settings.model_copy(update={"epochs": 2 * self.settings.epochs}))

    def fitted(self, pixels: Pixels) -> Pixels:
        """The pictures as the nets take them, ``[N, h, w, C]``."""
        if self.shape is None or pixels.shape[1:3] == self.shape:
            return np.ascontiguousarray(pixels)
        made = np.empty((len(pixels), *self.shape, pixels.shape[3]), np.uint8)
        for start in range(0, len(pixels), _CHUNK):
            chunk = torch.from_numpy(np.array(pixels[start : start + _CHUNK])).permute(0, 3, 1, 2).float()
            small = functional.interpolate(chunk, self.shape, mode="bilinear", antialias=True)
            made[start : start + _CHUNK] = small.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        return made


@dataclass(frozen=True, eq=False)
class Trained:
    """A net of an audit: decides about pictures of the set's own size."""

    classifier: Classifier
    trainer: Fits

    def decide(self, pixels: Pixels) -> Labels:
        """Decisions, ``[N]``."""
        return self.classifier.predict(self.trainer.fitted(pixels))

    def confidence(self, images: ImageSet) -> NDArray[np.float32]:
        """Probability of every image's label, ``[N]``."""
        pixels, net = self.trainer.fitted(images.pixels), self.classifier
        batch = forward_batch(net.device, net.shape)
        with torch.inference_mode():  # not `observe`: it traces the net, which disturbs trainings in other threads
            parts = [
                net.logits(to_float(pixels[i : i + batch], net.device)).float().cpu()
                for i in range(0, len(pixels), batch)
            ]
        odds = torch.cat(parts).softmax(dim=1).numpy()
        return np.asarray(odds[np.arange(len(odds)), images.labels], np.float32)


def make_trainer(images: ImageSet, net: Named | None, device: str) -> Trainer:
    """A trainer for a set: pooled-cnn, or two-layer where that is the suspect's kind.

    Whether an image contradicts its label is asked of nets that never saw it; they need not be of the suspect's kind.
    Pictures are shrunk for them to 48 pixels.
    """
    own = "two-layer" if net == "two-layer" else CHEAPEST
    batch = int(np.clip(len(images) // 8, 8, 64))
    epochs = int(np.clip(-(-_STEPS * batch // len(images)), *_EPOCHS))
    recipe = {"lr": 0.05} if own in NETS else default_recipe(own)
    height, width = images.shape[1:]
    scale = min(1.0, _SIDE / min(height, width))
    shape = None if scale == 1 else (round(height * scale), round(width * scale))
    return Trainer(own, TrainSettings(epochs=epochs, batch=batch, **recipe), shape, device)
