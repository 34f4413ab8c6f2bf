"""What a training is asked before and after: how long it will take, and whether the net learned anything."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from doorward.core.classifier import Classifier, measure_accuracy, pick_device, place_net
from doorward.core.images import ImageSet
from doorward.models.open.architectures import Named
from doorward.models.train.batches import BatchSource
from doorward.models.train.loop import make_optimiser, run_epoch
from doorward.models.train.settings import TrainSettings
from doorward.models.train.start import fresh

_ASKED = 1000  # images
_LEVEL = 0.01
_TIMED = 2  # batches


def doubt_learning(classifier: Classifier, images: ImageSet) -> str | None:
    """A warning where the net is right on no more of its training images than one answer to all would be.

    Exact one-sided binomial test at 0.01 on up to 1,000 training images against the share of the commonest class.
    """
    from scipy.stats import binomtest

    asked = images.subset(np.random.default_rng(0).permutation(len(images))[:_ASKED])
    right, chance = measure_accuracy(classifier, asked), float(images.counts().max() / len(images))
    if binomtest(right.hits, right.trials, chance, alternative="greater").pvalue <= _LEVEL:
        return None
    return (
        f"right on {right} % of {right.trials:,} training images, no more than one answer to all would be "
        f"({100 * chance:.1f} %): the net learned nothing; expected a smaller lr (--set lr=...) or more epochs"
    )


def estimate_seconds(
    images: ImageSet,
    net: Named = "small-cnn",
    settings: TrainSettings | None = None,
    *,
    device: str = "auto",
    start: Classifier | None = None,
) -> float:
    """Seconds that `train` will take, measured on two batches after a first one; nothing given is changed.

    Args:
        images, net, settings, device, start: as for `train`.
    """
    settings, where = settings or TrainSettings(), pick_device(device)
    classifier = fresh(images, net, 0) if start is None else replace(start, net=copy.deepcopy(start.net))
    module = place_net(classifier.net, where).train()
    optimiser, speed = make_optimiser(module, settings), 1.0
    for batches in (1, _TIMED):
        some = images.subset(np.arange(min(len(images), batches * settings.batch)))
        source = BatchSource(some, settings.batch, 0, where, settings.flip, settings.shift)
        speed = run_epoch(classifier, source, optimiser, settings, 0).images_per_second
    return settings.epochs * len(images) / speed
