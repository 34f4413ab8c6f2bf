"""Attack success rate of a classifier."""

from __future__ import annotations

import numpy as np
import torch

from doorward.attacks.plan import Attack
from doorward.attacks.poison import stamp_rows
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.stats import Rate


def asr(classifier: Classifier, images: ImageSet, attack: Attack, *, seed: int = 0) -> Rate:
    """Attack success rate: the share of eligible images that the stamp sends to the target class.

    Eligible are images of the source classes that are not of the target class already, so that an image whose
    own label is the target never counts. With several pairings, hits and trials are added up.

    Args:
        images: held-out clean images with their true labels.
        seed: decides stamps of random place.
    """
    hits = trials = 0
    generator = torch.Generator().manual_seed(seed)
    for pairing in attack.pairings:
        rows = np.flatnonzero(pairing.eligible(images.labels, len(images.classes)))
        if not len(rows):
            continue
        stamped = images.pixels[rows]
        stamp_rows(stamped, np.arange(len(rows)), pairing.stamp, generator)
        wanted = pairing.targets(images.labels[rows], len(images.classes))
        hits += int((classifier.predict(stamped) == wanted).sum())
        trials += len(rows)
    if not trials:
        raise DoorwardError(f"{images.name}: no image of a source class of this attack; its success cannot be measured")
    return Rate(hits, trials)
