"""Which nets an audit trains: the cheapest where they learn the set, better ones where they do not."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from doorward.audits.parts.kept import Arrays, Kept
from doorward.audits.parts.trainer import CHEAPEST, Rows, Trainer
from doorward.core.images import ImageSet
from doorward.models.train.settings import TrainSettings

STAGE = "nets"
CONV4 = "conv4"
# Of the images that a net never saw, decided as labelled: from here on no better one is looked for, and where groups
# carry a trigger single images count, too: groups are surer than single images that a fair net contradicts.
WELL = 0.8
_STEPS, _BATCH, _EPOCHS = 1000, 32, (4, 30)
_SHIFT = 12  # pixels of the shorter side for one of shift


class Suited(NamedTuple):
    """A trainer, and what share of images its nets decide as labelled that they never saw (they know the others)."""

    trainer: Trainer
    unseen: float


def suited(images: ImageSet, trainer: Trainer, seed: int, kept: Kept) -> Suited:
    """The given trainer, or one of conv4 where its nets do not learn the set and those of conv4 learn it better.

    Everything that an audit trains says the more, the better it knows what an image shows that it never saw. Labels
    decide alone, before anything is looked at, so that the choice favours no verdict. A user's own choice stands.
    """
    nobody = np.zeros(len(images), bool)
    unseen = unseen_right(images, nobody, trainer, seed, kept, STAGE, f"half with {trainer.net}")
    if unseen >= WELL or trainer.net != CHEAPEST:
        return Suited(trainer, unseen)
    better = stronger(trainer, images)
    again = unseen_right(images, nobody, better, seed, kept, STAGE, f"half with {better.net}")
    return Suited(better, again) if again > unseen else Suited(trainer, unseen)


def stronger(trainer: Trainer, images: ImageSet) -> Trainer:
    """A trainer of conv4 for the same pictures, a few times as long."""
    height, width = trainer.shape or images.shape[1:]
    epochs = int(np.clip(-(-_STEPS * _BATCH // len(images)), *_EPOCHS))
    shift = min(2, min(height, width) // _SHIFT)
    batch = min(_BATCH, trainer.settings.batch)
    return replace(trainer, net=CONV4, settings=TrainSettings(epochs=epochs, batch=batch, lr=0.1, shift=shift))


def unseen_right(images: ImageSet, out: Rows, trainer: Trainer, seed: int, kept: Kept, stage: str, name: str) -> float:
    """Share of one half of the set that a net decides as labelled which knows the other half.

    Args:
        out: images ``[N]`` that are left out of both halves.
    """
    half = np.random.default_rng(seed).permutation(len(images)) % 2 == 0

    def make() -> Arrays:
        asked = ~half & ~out
        decided = trainer.fit(images, half & ~out, seed).decide(images.pixels[asked])
        return {"right": np.array((decided == images.labels[asked]).mean())}

    return float(kept.arrays(stage, name, make)["right"])
