"""Inverted triggers on clean images that keep their labels: the batches of the defence loss, and their success."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.stats import Rate
from doorward.core.triggers import Stamp
from doorward.inversion.search.measure import success

Triggers = Mapping[int, Sequence[Stamp]]  # target class to the stamps that lead to it, the best first


@dataclass(frozen=True, eq=False)
class Mixed:
    """Several stamps as one: every image gets one of them, drawn with equal chances."""

    stamps: tuple[Stamp, ...]

    def apply(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Stamp ``[B, C, H, W]`` in [0, 1]; the input is left as it was."""
        if len(self.stamps) == 1:
            return self.stamps[0].apply(images, generator)
        chosen = torch.randint(len(self.stamps), (len(images),), generator=generator)
        stamped = images.clone()
        for index, stamp in enumerate(self.stamps):
            rows = torch.nonzero(chosen == index)[:, 0].to(images.device)
            if len(rows):
                stamped[rows] = stamp.apply(images[rows], generator)
        return stamped


@dataclass(frozen=True, eq=False)
class TrueLabelStamping:
    """The defender inside the training (Qiao, Yang and Li 2019, defence loss).

    Each image of a batch gets, with chance ``share``, a trigger of one target drawn with equal chances, and keeps its
    label. An image that is of that target anyway is left plain: the trigger and its label agree, so it would teach
    the net to trust the trigger.
    """

    targets: tuple[tuple[int, Mixed], ...]
    share: float

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images ``[B, C, H, W]`` in [0, 1], some stamped, and the labels ``[B]`` as they were."""
        drawn = torch.rand(len(labels), generator=generator) < self.share
        chosen = torch.randint(len(self.targets), (len(labels),), generator=generator)
        known, stamped = labels.cpu(), images.clone()
        for index, (target, stamp) in enumerate(self.targets):
            rows = torch.nonzero(drawn & (chosen == index) & (known != target))[:, 0].to(images.device)
            if len(rows):
                stamped[rows] = stamp.apply(images[rows], generator)
        return stamped, labels


def checked(what: str, triggers: Triggers, classifier: Classifier) -> tuple[tuple[int, Mixed], ...]:
    """Target and mixed stamps, sorted by target.

    Raises:
        DoorwardError: no triggers, a target that the classifier does not have, or a stamp that does not fit its images.
    """
    found = [(int(target), tuple(stamps)) for target, stamps in sorted(triggers.items()) if stamps]
    if not found:
        raise DoorwardError(f"repair {what}: no triggers; expected at least one for at least one target class")
    blank = torch.zeros(1, *classifier.shape)
    for target, stamps in found:
        if not 0 <= target < len(classifier.classes):
            raise DoorwardError(
                f"repair {what}: triggers for class {target}; expected one of 0..{len(classifier.classes) - 1}"
            )
        for stamp in stamps:
            stamp.apply(blank, torch.Generator().manual_seed(0))
    return tuple((target, Mixed(stamps)) for target, stamps in found)


def success_by_target(
    classifier: Classifier, images: ImageSet, targets: Sequence[tuple[int, Stamp]], seed: int
) -> dict[int, Rate]:
    """For each target, the share of images of other classes that its stamp sends there, each image stamped once."""
    return {
        target: success(classifier, images.pixels, images.labels, stamp, target, seed=seed) for target, stamp in targets
    }


def total(rates: Mapping[int, Rate]) -> Rate:
    """Hits and trials of several targets, added up."""
    return Rate(sum(r.hits for r in rates.values()), sum(r.trials for r in rates.values()))
