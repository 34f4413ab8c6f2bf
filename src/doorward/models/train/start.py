"""Where a training starts: from fresh weights, or from given ones with a head for the classes of the images."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.outputs import find_head
from doorward.models.nets.architecture import Floats
from doorward.models.open.architectures import Named, find_architecture
from doorward.models.open.foreign import conventions
from doorward.models.open.load import ModelOptions, has_conventions

_GLOBAL_GENERATOR = threading.Lock()  # initial weights come from it, and trainings may run in several threads


def fresh(images: ImageSet, net: Named, seed: int) -> Classifier:
    """A classifier with fresh weights for the images, and their mean and deviation.

    Raises:
        DoorwardError: a net that does not take the images, or decides between another number of classes.
    """
    with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        architecture = find_architecture(net)
        module = architecture.build(images.shape, len(images.classes))
    mean, std = channel_statistics(images)
    classifier = Classifier(module, architecture.name, images.classes, images.shape, mean, std, classes_from="images")
    classifier.check()
    return classifier


def from_weights(
    path: Path,
    net: str | None,
    images: ImageSet,
    *,
    seed: int = 0,
    mean: Floats | None = None,
    std: Floats | None = None,
    value_range: tuple[float, float] | None = None,
) -> tuple[Classifier, tuple[str, ...]]:
    """A classifier with given weights, for the classes of the images; its head is replaced where they are others.

    Args:
        path: what `load_model` opens.
        net: the architecture, where the weights do not say it themselves.
        mean, std, value_range: as for `load_model`; else those of the model's folder, else those of the images.

    Returns: the classifier, which takes images of the size it was made for; and in words what was done.
    """
    knows = has_conventions(path)
    given = None if path.is_dir() else images  # a folder says itself which images its net takes
    options = ModelOptions(model=str(path), arch=net, shape=given.shape if given else None, device="cpu")
    model = options.open(given, labelled=False)
    notes = list(model.notes)
    if any((mean, std, value_range)):
        scaled = conventions(mean, std, value_range, model.shape[0])
        model = replace(model, mean=scaled[0], std=scaled[1])
    elif not knows and (model.mean, model.std) == ((0.0,), (1.0,)):
        own = channel_statistics(images)
        model = replace(model, mean=own[0], std=own[1])
        notes = [f"{path}: mean and std are those of the images, since nothing says the weights' own"]
    known = model.classes if model.classes_from != "numbers" else images.classes
    if len(model.classes) != len(images.classes) or known != images.classes:
        notes.append(
            f"{path}: weights for {len(model.classes)} classes; the head is replaced by one for the "
            f"{len(images.classes)} of {images.name}"
        )
        replace_head(model, len(images.classes), seed)
    return replace(model, classes=images.classes, classes_from="images", notes=()), tuple(notes)


def replace_head(classifier: Classifier, classes: int, seed: int) -> None:
    """Put a fresh layer for so many classes in the place of the classifier's head.

    Raises:
        DoorwardError: the net has no linear layer or 1x1 convolution that makes its logits.
    """
    name = find_head(classifier.net, len(classifier.classes))
    head = None if name is None else classifier.net.get_submodule(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new: nn.Module
        if isinstance(head, nn.Linear) and head.out_features == len(classifier.classes):
            new = nn.Linear(head.in_features, classes, head.bias is not None)
        elif isinstance(head, nn.Conv2d):
            new = nn.Conv2d(head.in_channels, classes, 1, bias=head.bias is not None)
        else:
            outputs = len(classifier.classes)
            raise DoorwardError(f"{classifier.arch}: no layer of {outputs} outputs; expected a head to be replaced")
    classifier.net.set_submodule(str(name), new)


def channel_statistics(images: ImageSet) -> tuple[Floats, Floats]:
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
