"""The proof of a repair: what is measured without the triggers that it trained against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.order_test import FEWEST_CLASSES
from doorward.core.pixels import to_float, to_uint8
from doorward.core.results import RateRecord
from doorward.core.stats import Rate
from doorward.core.triggers import Stamp
from doorward.inversion.results import Inversion
from doorward.inversion.search.measure import success
from doorward.repairs.arms import Arm, Bench, Planned
from doorward.repairs.parts.around import around
from doorward.repairs.parts.stamping import Mixed
from doorward.repairs.parts.standing import INVERSIONS, Standing, enough, look, standings
from doorward.repairs.results import ArmRecord, ProofRecord, StandingRecord, VariationRecord
from doorward.repairs.summary import row_of

SEED = 9973  # from a repair's seed to that of the proof's inversion; no repair takes steps of it
LEVEL = 0.05
DRAWS = 8  # variations per held-out image
_GROW, _SHIFT = 4, 2  # pixels; a repair's family grows by 3 and stays at its place
_BATCH = 512


def proved(bench: Bench, arm: Arm, planned: Sequence[Planned] = ()) -> ArmRecord:
    """The row of an arm with its proof; ``planned``: all arms, of which a control that stands alone is proved too."""
    alone = arm.planned in planned[:1] and not any(one.role == "repair" for one in planned)
    return row_of(arm).model_copy(update={"proof": proof_of(bench, arm, wanted=alone)})


def proof_of(bench: Bench, arm: Arm, *, wanted: bool = False) -> ProofRecord | None:
    """The proof of an arm that is a repair or the classifier as given; None without triggers, and of other arms.

    The classifier is inverted afresh, on all clean images and with a seed that no repair used: a target whose backdoor
    is gone is no easier to reach than other classes. And the held-out images are stamped with draws from a family
    around the found triggers that is wider than what repairs train on: places moved by up to 2 pixels, shapes grown by
    up to 4, colour noise (`doorward.repairs.parts.around`). Neither is the attacker's trigger, but the repair
    trained against neither.

    Args:
        wanted: prove it whatever its role.

    Fails when: the attacker's trigger is none that a smallest mask or a shortest picture is like (a warp), and lies
        outside the wider family. A backdoor for few source classes raises no class's ease over all others.
    """
    if not bench.prove or not bench.triggers or not (wanted or arm.planned.role in ("given", "repair")):
        return None
    classifier, every = arm.repaired.classifier, _both(bench.fitted, bench.held)
    seed = bench.seed + SEED
    variations = tuple(variation(classifier, bench, target, seed) for target in sorted(bench.triggers))
    if not enough(classifier, every):
        why = f"{len(classifier.classes)} classes and {len(every)} images to compare; expected {FEWEST_CLASSES} classes"
        return ProofRecord(
            seed=seed,
            images=0,
            level=LEVEL,
            p_values=dict.fromkeys(sorted(bench.triggers)),
            standings=tuple(
                StandingRecord(method=m, label=k, undecided=why) for k in sorted(bench.triggers) for m in INVERSIONS
            ),
            variations=variations,
        )
    found = look(classifier, every, seed, {})
    rows = [_record(one, found, bench, classifier, seed) for k in sorted(bench.triggers) for one in standings(found, k)]
    return ProofRecord(
        seed=seed,
        images=len(every),
        level=LEVEL,
        p_values={k: found.record.classes[k].p_value for k in sorted(bench.triggers)},
        beside=_beside(found, bench),
        standings=tuple(rows),
        variations=variations,
    )


def variation(classifier: Classifier, bench: Bench, target: int, seed: int) -> VariationRecord:
    """Success of variations of the triggers of a target, beside what the same images give to classes that are none.

    A stamp hides a part of the image, so some images are decided otherwise under any; where no backdoor is left, the
    target gets no more of them than another class does.
    """
    stamp = Mixed(tuple(around(bench.triggers[target], grow=_GROW, shift=_SHIFT, wider=True)))
    known = bench.held.labels
    votes = _votes(classifier, bench.held, stamp, seed)  # [N, K]
    others = [k for k in range(len(classifier.classes)) if k not in bench.triggers]
    natural = max((float(votes[known != k, k].mean() / DRAWS) for k in others if (known != k).any()), default=0.0)
    eligible = known != target
    hits = round(float(votes[eligible, target].sum()) / DRAWS)
    return VariationRecord(label=target, success=RateRecord.of(Rate(hits, int(eligible.sum()))), natural=natural)


def _votes(classifier: Classifier, images: ImageSet, stamp: Stamp, seed: int) -> NDArray[np.int64]:
    """How many of an image's draws are decided as each class, ``[N, K]``."""
    generator = torch.Generator().manual_seed(seed)
    votes = np.zeros((len(images), len(classifier.classes)), np.int64)
    for start in range(0, len(images), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(images)))
        pictures = to_float(images.pixels[rows])
        for _ in range(DRAWS):
            votes[rows, classifier.predict(to_uint8(stamp.apply(pictures, generator)))] += 1
    return votes


def _record(one: Standing, found: Inversion, bench: Bench, classifier: Classifier, seed: int) -> StandingRecord:
    rate = None
    if one.trigger is not None:
        held = bench.held
        rate = RateRecord.of(success(classifier, held.pixels, held.labels, one.trigger, one.label, seed=seed))
    return StandingRecord(
        method=one.method,
        label=one.label,
        size=one.size,
        others=one.median,
        smallest=one.smallest,
        p_value=one.p_value,
        undecided=found.outcomes[one.method].undecided,
        success=rate,
    )


def _beside(found: Inversion, bench: Bench) -> dict[int, float]:
    """Classes that stand out and are no target."""
    verdicts: list[Any] = [v for v in found.record.classes if v.label not in bench.triggers]
    return {v.label: v.p_value for v in verdicts if v.p_value is not None and v.p_value <= LEVEL}


def _both(one: ImageSet, other: ImageSet) -> ImageSet:
    """Images to repair with and images to measure on, as one set."""
    pixels, labels = (np.concatenate([getattr(s, k) for s in (one, other)]) for k in ("pixels", "labels"))
    return replace(one, pixels=pixels, labels=labels, ids=())
