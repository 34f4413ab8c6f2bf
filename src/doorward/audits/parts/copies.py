"""Copies of a net trained on with parts of the set, where training anew takes long or small nets hardly learn it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from doorward.audits.parts.trainer import Pixels, Rows, Trained, both
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.plan import at_pace
from doorward.repairs.parts.tuning import TuneSettings, tune

_MOST, _FEWEST = 2000, 1000  # images of the set that a copy is trained on with
_TO_ONE = 20  # other images for each one that has to be among them
_BATCH, _STEPS = 64, 150  # of a copy's training


@dataclass(frozen=True)
class Copies:
    """Trains copies of one net on; the counterpart of `doorward.audits.parts.trainer.Trainer`.

    A copy sees some thousand images of the set, in place of all: what it has learned stays, and what these contradict
    goes. Rate and steps are those of a repair (`doorward.repairs.parts.tuning`).

    Args:
        start: the net that every copy begins as.
        steps: of the training.
    """

    start: Classifier
    steps: int = _STEPS

    def fit(
        self, images: ImageSet, keep: Rows, seed: int, more: ImageSet | None = None, among: Rows | None = None
    ) -> Trained:
        """Train a copy on some of the images that are kept, and on half as many of ``more``.

        Args:
            among: ``[N]``, those of the kept images that have to be among them.
        """
        rng = np.random.default_rng(seed)
        must = np.zeros(len(images), bool) if among is None else among
        sure, others = np.flatnonzero(keep & must), np.flatnonzero(keep & ~must)
        count = int(np.clip(_TO_ONE * len(sure), _FEWEST, _MOST)) if len(sure) else _MOST
        rows = np.sort(np.concatenate([sure, rng.permutation(others)[:count]]))
        some = None if more is None else more.subset(rng.permutation(len(more))[: len(rows) // 2])
        training = both(images.subset(rows), some)
        passes = max(1, round(self.steps * _BATCH / len(training)))
        settings = TuneSettings(epochs=passes, batch=_BATCH, held_out=0.0)
        return Trained(tune("audit", self.start, training, settings, seed=seed).classifier, self)

    def fitted(self, pixels: Pixels) -> Pixels:
        """The pictures as the net takes them: as they are."""
        return pixels

    def at_once(self, images: ImageSet) -> int:
        """One: every net here takes all cores, and its dropout the one global generator."""
        return 1


def copy_seconds(start: Classifier, images: ImageSet, seed: int) -> float:
    """About how long one copy takes, by a few of its steps."""
    few = images.subset(np.random.default_rng(seed).permutation(len(images))[: 5 * _BATCH])
    keep = np.ones(len(few), bool)
    return at_pace(lambda steps: Copies(start, steps).fit(few, keep, seed), 5, 10, _STEPS)
