"""Retraining on images under inverted triggers that keep their labels: all triggers, or one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from pydantic import Field, model_validator

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.methods import method
from doorward.core.triggers import Stamp
from doorward.inversion.distribution.triggers import TriggerDistribution
from doorward.inversion.search.measure import success
from doorward.repairs.parts.retraining import SHARE, SHARE_AROUND, StampedSettings, families, retrained
from doorward.repairs.parts.stamping import Mixed, checked
from doorward.repairs.parts.tuning import divide
from doorward.repairs.repaired import Repaired

_TRIED_IMAGES = 500  # on which candidates for a single trigger are compared


class RetrainSettings(StampedSettings):
    """Settings of retraining. The share is 0.5 where stamps are drawn around the triggers, else 0.2."""

    share: float = Field(
        SHARE_AROUND, gt=0, le=1, description="chance that an image of a batch is stamped; the authors: 0.01"
    )
    around: bool = Field(
        True, description="stamp what is drawn around the triggers; false: the triggers as found, and a share of 0.2"
    )

    @model_validator(mode="after")
    def _share_of_one_trigger(self) -> Self:
        if not self.around and "share" not in self.model_fields_set:
            object.__setattr__(self, "share", SHARE)
        return self


class UnlearnSettings(StampedSettings):
    """Settings of unlearning: those of training on, and how the one trigger is chosen."""

    draws: int = Field(16, ge=1, description="triggers drawn from a distribution, of which the most successful is used")


AUTHORS = {"epochs": 10, "batch": 128, "lr": 1e-3, "momentum": 0.9, "weight_decay": 0.0, "share": 0.01}


@method("repair", "retrain", settings=RetrainSettings, given={"classifier", "clean_images", "triggers", "seed"})
def retrain(
    classifier: Classifier,
    clean_images: ImageSet,
    triggers: Mapping[int, Sequence[Stamp]],
    s: RetrainSettings,
    *,
    seed: int,
) -> Repaired:
    """Train on with clean images, some under an inverted trigger, all with their true labels.

    Qiao, Yang and Li, NeurIPS 2019, defence loss: with probability r' an image gets a trigger drawn from the inverted
    distribution, placed as the distribution says, and keeps its label. The net is in training mode, so that
    batch-norm statistics move; compare with the arms ``fine-tune`` and ``refresh``.

    Deviation: by default every found trigger stands for the family around it (`doorward.repairs.parts.around`), since
    a net that forgets the found trigger may well keep the attacker's. ``around=False`` is the paper's form.

    Args:
        classifier: left as it was.
        clean_images: images known to be clean, with their labels.
        triggers: target class to stamps (`Trigger`, `TriggerDistribution`); several of one target, and several
            targets, are mixed with equal chances. Images of a stamp's own target are not stamped.
        seed: of the split, the order of images and the stamps.

    Returns: the classifier; the record holds held-out accuracy as given and retrained.

    Raises:
        DoorwardError: images or triggers that do not fit the classifier, or weights that diverged.

    Fails when: the attacker's triggers are not among those drawn around the inverted ones. One round may not do: `hold`
    looks again and goes on.
    """
    targets = (families if s.around else checked)("retrain", triggers, classifier)
    done = f"retrained for {s.epochs} epochs, {100 * s.share:g} % of images stamped"
    return retrained("retrain", classifier, clean_images, targets, s, s.share, seed=seed, done=done)


@method("repair", "unlearn", settings=UnlearnSettings, given={"classifier", "clean_images", "triggers", "seed"})
def unlearn(
    classifier: Classifier,
    clean_images: ImageSet,
    triggers: Mapping[int, Sequence[Stamp]],
    s: UnlearnSettings,
    *,
    seed: int,
) -> Repaired:
    """Train on with clean images, some under one single trigger per target, all with their true labels.

    The baseline of Qiao, Yang and Li, NeurIPS 2019, and the unlearning of Neural Cleanse (Wang et al., S&P 2019,
    Section VI-C): as `retrain`, with the one trigger that succeeds most on the clean images. Of a
    `TriggerDistribution` some triggers are drawn to choose from.

    Args, returns, errors: as `retrain`.

    Fails when: many triggers work, for the net forgets this one and keeps the others.
    """
    targets = checked("unlearn", triggers, classifier)
    fitted, _ = divide("unlearn", classifier, clean_images, s.held_out, seed)
    single = tuple((t, Mixed((_best(classifier, fitted, t, m.stamps, s.draws, seed),))) for t, m in targets)
    done = f"unlearned for {s.epochs} epochs, {100 * s.share:g} % of images under one trigger"
    return retrained("unlearn", classifier, clean_images, single, s, s.share, seed=seed, done=done)


def _best(
    classifier: Classifier, images: ImageSet, target: int, stamps: Sequence[Stamp], draws: int, seed: int
) -> Stamp:
    """The stamp that sends most images to the target; the first of equals."""
    generator = torch.Generator().manual_seed(seed)
    candidates: list[Stamp] = []
    for stamp in stamps:
        if isinstance(stamp, TriggerDistribution):
            candidates += [stamp.trigger(generator) for _ in range(draws)]
        else:
            candidates.append(stamp)
    if len(candidates) == 1:
        return candidates[0]
    rows = torch.randperm(len(images), generator=generator)[:_TRIED_IMAGES].numpy()
    pixels, labels = images.pixels[rows], images.labels[rows]
    hits = [success(classifier, pixels, labels, c, target, seed=seed).hits for c in candidates]
    return candidates[hits.index(max(hits))]
