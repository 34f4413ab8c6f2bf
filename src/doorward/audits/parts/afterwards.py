"""The model without what was found: trained anew, or a copy of the given one trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from doorward.audits.parts.copies import Copies
from doorward.audits.parts.grow import shown
from doorward.audits.parts.trainer import Rows
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.triggers import Stamp

Stamps = Mapping[int, Sequence[Stamp]]


def unlearned(images: ImageSet, model: Classifier, out: Rows, triggers: Stamps, seed: int) -> Classifier:
    """A copy of the model trained on without the images ``out``, with draws around the triggers truly labelled.

    A net that was only trained on without poisoned images would keep the trigger: nothing contradicts it.
    """
    return Copies(model).fit(images, ~out, seed, shown(images, ~out, triggers, seed)).classifier


def joined(found: Sequence[Stamps]) -> dict[int, list[Stamp]]:
    """The triggers of several rounds by class."""
    every: dict[int, list[Stamp]] = {}
    for stamps in found:
        for label, some in stamps.items():
            every.setdefault(label, []).extend(some)
    return every
