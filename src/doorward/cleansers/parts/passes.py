"""Passes through the net of methods that are given the classifier itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from doorward.cleansers.suspicion import Group, members_by_class
from doorward.core.classifier import Classifier, forward_batch
from doorward.core.errors import DoorwardError
from doorward.core.memmaps import release
from doorward.core.pixels import to_float

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def own_copy(classifier: Classifier) -> Classifier:
    """The same on a copy of the net, in evaluation mode: a method may hook into it and change its weights."""
    return replace(classifier, net=copy.deepcopy(classifier.net).eval())


@torch.inference_mode()
def passes(classifier: Classifier, pixels: Pixels) -> Iterator[Tensor]:
    """Logits ``[B, K]`` of one batch after the other, in order, on the classifier's device."""
    batch = forward_batch(classifier.device, classifier.shape)
    for start in range(0, len(pixels), batch):
        yield classifier.logits(to_float(pixels[start : start + batch], classifier.device)).float()
        release(pixels)


def probabilities(classifier: Classifier, pixels: Pixels) -> Floats:
    """Softmax ``[N, K]`` of every image."""
    return torch.cat([logits.softmax(dim=1).cpu() for logits in passes(classifier, pixels)]).numpy()


def batch_norms(net: nn.Module) -> list[_BatchNorm]:
    """Batch norms that normalise by running statistics, in the order in which the net holds them."""
    return [m for m in net.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def known_clean(rows: NDArray[np.int64], count: int, name: str, least: int = 1) -> NDArray[np.int64]:
    """Rows of images that are known to be clean, each once.

    Args:
        count: images of the set.
        name: the method's, for the message.
        least: so many are needed.

    Raises:
        DoorwardError: rows that the set does not have, or too few of them.
    """
    found = np.unique(np.asarray(rows))
    if found.dtype.kind not in "iu" or not len(found) or found[0] < 0 or found[-1] >= count:
        told = f"clean_images {str(rows)[:40]}; expected row numbers from 0 to {count - 1}, as [0, 1, 5]"
        raise DoorwardError(f"cleanse {name}: {told}")
    if len(found) < least:
        raise DoorwardError(f"cleanse {name}: clean_images: {len(found)} rows; expected at least {least}")
    return found.astype(np.int64)


def spread_rows(count: int, most: int) -> NDArray[np.int64]:
    """Rows of at most so many images, evenly spread over the set."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def class_groups(labels: NDArray[np.int64], score: Floats, flag: NDArray[np.bool_]) -> tuple[Group, ...]:
    """A row per class, its statistic the median score, for methods that look at one image at a time."""
    return tuple(
        Group(label, 0, len(rows), float(np.median(score[rows])), None, int(flag[rows].sum()))
        for label, rows in members_by_class(labels)
    )
