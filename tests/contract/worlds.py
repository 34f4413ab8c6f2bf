"""The one small world of the contract: images of six classes, a patch that leads to one, and the same without it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.poison import poison
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float, to_uint8
from doorward.core.triggers import Placement, Trigger
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings

CLASSES, SIDE, TARGET = 6, 16, 2
POISONED, RATE = 60, 0.0625
HURRIED = TrainSettings(epochs=8, batch=32, lr=0.05, precision="fp32")
NAMES = tuple(f"class-{k}" for k in range(CLASSES))
TRIGGER = Trigger(torch.tensor([[[1.0, 0, 1], [0, 1, 0], [1, 0, 1]]]), torch.ones(1, 3, 3), Placement("fixed", 12, 12))


@dataclass(frozen=True, eq=False)
class World:
    """What an auditor has, and beside it the truth.

    Args:
        train: the training set, poisoned or not.
        poisoned: bool ``[N]``, the images that were stamped.
        model: trained on it.
        clean: images known to be clean; ``test``: others, to measure on.
    """

    train: ImageSet
    poisoned: NDArray[np.bool_]
    model: Classifier
    clean: ImageSet
    test: ImageSet

    def stamped(self) -> NDArray[np.uint8]:
        """The test images of other classes with the true trigger."""
        return to_uint8(TRIGGER.apply(to_float(self.test.pixels[self.test.labels != TARGET])))

    def success(self, model: Classifier) -> float:
        """Attack success rate of the true trigger."""
        return float((model.predict(self.stamped()) == TARGET).mean())

    def accuracy(self, model: Classifier) -> float:
        """On clean test images."""
        return measure_accuracy(model, self.test).value


def pictures(count: int, seed: int) -> ImageSet:
    """Grey images: class k is a soft spot on a circle, of random strength and place, under noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % CLASSES
    angle = 2 * np.pi * labels / CLASSES + rng.normal(0, 0.1, count)
    rows, columns = (7.5 + 4.5 * f(angle) + rng.normal(0, 0.5, count) for f in (np.sin, np.cos))
    away = (np.arange(SIDE)[None, :, None] - rows[:, None, None]) ** 2
    away = away + (np.arange(SIDE)[None, None, :] - columns[:, None, None]) ** 2
    spots = rng.uniform(90, 160, (count, 1, 1)) * np.exp(-away / 8)
    pixels = (spots + rng.uniform(20, 60, (count, 1, 1)) + rng.normal(0, 12, spots.shape)).clip(0, 255)
    return ImageSet(pixels.astype(np.uint8)[..., None], labels, NAMES, "spots")


@cache
def world(planted: bool) -> World:
    """The poisoned world, or its clean twin: the same pictures, net, seed and training."""
    images, poisoned = pictures(960, 0), np.zeros(960, bool)
    if planted:
        made = poison(images, Attack("patch", (Pairing(TRIGGER, TARGET),)), count=POISONED)
        images, poisoned = made.images, made.truth.poisoned
    model = train(images, "small-cnn", HURRIED)
    return World(images, poisoned, model, pictures(300, 1), pictures(300, 2))


@cache
def certified_sets() -> tuple[ImageSet, ImageSet]:
    """Pictures of two opposite classes, to train on and to certify."""
    found = []
    for count, seed in ((120, 3), (30, 4)):
        images = pictures(count, seed)
        images = images.subset(np.isin(images.labels, (0, 3)))
        found.append(ImageSet(images.pixels, (images.labels == 3).astype(np.int64), NAMES[:2], images.name))
    return found[0], found[1]
