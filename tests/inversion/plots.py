"""A world with a trigger at a known place: a linear net with many classes, one of which also reads a small plot."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float
from doorward.inversion.methods.window.complete import CompleteSettings
from doorward.inversion.methods.window.effort import EffortSettings
from doorward.inversion.methods.window.window import WindowSettings
from doorward.inversion.search.frozen import Frozen
from doorward.inversion.search.scene import Scene

CLASSES, HEIGHT, WIDTH = 24, 20, 16
TARGET, TOP, LEFT, TALL, WIDE = 7, 11, 3, 4, 6  # the planted class and its plot

LOOK = EffortSettings(steps=40, grain=1)  # the checks are single pixels
SETTINGS = WindowSettings(
    window=5, suspects=3, completed=2, effort=LOOK, thorough=LOOK, complete=CompleteSettings(grain=1)
)


def plot() -> NDArray[np.bool_]:
    """Pixels of the plot, ``[H, W]``."""
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[TOP : TOP + TALL, LEFT : LEFT + WIDE] = True
    return inside


def plot_classifier(
    planted: bool = True, targets: tuple[int, ...] = (TARGET,), strength: float = 5.0, coarse: bool = False
) -> Classifier:
    """Every class has weights of its own; a planted one also a plot, which no clean image shows.

    The plot is checked, pixel by pixel; a ``coarse`` one has a bright half and a dark one.
    """
    generator = torch.Generator().manual_seed(2)
    weight = 0.1 * torch.randn(CLASSES, 1, HEIGHT, WIDTH, generator=generator)
    checks = (torch.arange(TALL)[:, None] + torch.arange(WIDE)) % 2 * 2.0 - 1
    if coarse:
        checks = (torch.arange(WIDE) < WIDE // 2).expand(TALL, WIDE) * 2.0 - 1
    for number, target in enumerate(targets if planted else ()):
        top = TOP if number == 0 else 1
        weight[target, 0, top : top + TALL, LEFT : LEFT + WIDE] += strength * checks / 2
    layer = nn.Linear(HEIGHT * WIDTH, CLASSES)
    with torch.no_grad():
        layer.weight.copy_(weight.flatten(1))
        layer.bias.copy_(-0.5 * weight.flatten(1).sum(1))  # grey images lead nowhere
    names = tuple(f"class-{k}" for k in range(CLASSES))
    return Classifier(nn.Sequential(nn.Flatten(), layer), "plots", names, (1, HEIGHT, WIDTH))


def plot_images(count: int = 80, seed: int = 0) -> ImageSet:
    """Clean images: grey with coarse noise, which the plot's checks do not see; labels mean nothing."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 45, (count, HEIGHT // 4, WIDTH // 4, 1)).repeat(4, 1).repeat(4, 2)
    pixels = np.clip(128 + coarse + rng.normal(0, 4, (count, HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8)
    labels = np.arange(count, dtype=np.int64) % CLASSES
    return ImageSet(pixels, labels, tuple(f"class-{k}" for k in range(CLASSES)), "plots")


def plot_scene(classifier: Classifier, images: ImageSet) -> Scene:
    """The frozen classifier and the images, labelled by its own decisions."""
    labels = torch.from_numpy(classifier.predict(images.pixels))
    return Scene(Frozen(classifier, "fp32"), to_float(images.pixels).permute(0, 2, 3, 1), labels)
