"""Training on with clean images, some of them stamped and all truly labelled: what several repairs do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import Field

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.triggers import Stamp
from doorward.repairs.parts.around import around
from doorward.repairs.parts.stamping import Mixed, Triggers, TrueLabelStamping, checked
from doorward.repairs.parts.tuning import TuneSettings, tune
from doorward.repairs.repaired import Repaired

SHARE, SHARE_AROUND = 0.2, 0.5


class StampedSettings(TuneSettings):
    """Settings of training on with stamped images.

    ``share`` is r' of Qiao, Yang and Li 2019, 0.01. Of a few hundred clean images that stamps a handful, and the repair
    hangs on their luck; 0.2 is Neural Cleanse's share. On digits it costs no clean accuracy that could be measured; of
    CIFAR-10 see results/mesa.
    """

    share: float = Field(SHARE, gt=0, le=1, description="chance that an image of a batch is stamped; the authors: 0.01")


def retrained(
    what: str,
    classifier: Classifier,
    clean_images: ImageSet,
    targets: Sequence[tuple[int, Mixed]],
    s: TuneSettings,
    share: float,
    *,
    seed: int,
    done: str,
) -> Repaired:
    """Train a copy on, with so large a share of the images under a stamp, all with their true labels."""
    stamping = TrueLabelStamping(tuple(targets), share)
    repaired = tune(what, classifier, clean_images, s, seed=seed, stamping=stamping, done=done)
    told: dict[str, object] = {"targets": [t for t, _ in targets], "stamps": [len(m.stamps) for _, m in targets]}
    return replace(repaired, details={**repaired.details, **told})


def families(
    what: str, triggers: Mapping[int, Sequence[Stamp]], classifier: Classifier
) -> tuple[tuple[int, Mixed], ...]:
    """Per target the families around its triggers, mixed with equal chances; checked like `checked`."""
    checked(what, triggers, classifier)
    wide: Triggers = {target: around(stamps) for target, stamps in triggers.items() if stamps}
    return checked(what, wide, classifier)
