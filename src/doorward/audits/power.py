"""How few poisoned images an audit would have found: a known trigger is planted into copies of the set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.poison import poison
from doorward.attacks.rate import asr
from doorward.attacks.stamps import make_stamp
from doorward.audits.gathering import Budget
from doorward.audits.parts.anew import Anew
from doorward.audits.parts.kept import Kept
from doorward.audits.parts.trainer import Rows, Trainer
from doorward.audits.plan import closer_look, first_look
from doorward.audits.records import PowerRecord, TrialRecord
from doorward.audits.rounds import look_once
from doorward.audits.verdict import LIKE_OTHERS
from doorward.core.images import ImageSet
from doorward.core.results import LEVELS

STAGE = "power"
TRIALS = 4  # at most
SHARE = 0.005  # of the set's images that bear the trigger in the first trial
FEWEST = 5  # images
MOST = 0.04  # share of the set
_SMALLEST, _PART = 3, 10  # side of the trigger: pixels at least, and the part of the picture's shorter side
_TRIED = 1000  # images that the planted trigger's success is measured on


@dataclass(frozen=True)
class Injection:
    """What every trial has in common: the set without its suspects, and who trains on it."""

    images: ImageSet
    trainer: Trainer
    anew: Anew | None
    level: float
    seed: int


def power_of(
    images: ImageSet,
    stay: Rows,
    trainer: Trainer,
    anew: Anew | None,
    *,
    level: float,
    seed: int,
    budget: Budget,
    kept: Kept,
) -> PowerRecord | None:
    """Plant a known trigger into copies of the set, train on each, and look at it as the audit's first round does.

    The trigger is a checkerboard in a corner, three pixels or a tenth of the picture wide, on images of other classes
    that get the label of one class of middle size. Half a percent of the set bears it in the first trial; then half as
    many, as long as it is found, or twice as many until it is. No suspect of the audit is in a copy.

    Args:
        stay: ``[N]``, images that are no suspects.

    Returns:
        the trials; None where there is no time for one.

    Fails when: other triggers need more images than this one. It is a statement about one trigger that is easy to
        learn, as an audit of this set is set up, and no bound on what an attacker can hide.
    """
    part = images if stay.all() else images.subset(stay)
    if anew is None and trainer.shape is not None:  # nets of the audit see small pictures; so does the trigger
        part = replace(part, pixels=trainer.fitted(part.pixels))
    label = _middle(part.labels, len(part.classes))
    side = min(part.shape[1:])
    size = min(side, max(_SMALLEST, side // _PART))
    plan = Attack("patch", (Pairing(make_stamp("patch", part.shape, seed, size=size), label),))
    setup = Injection(part, trainer, anew, level, seed)
    trials = list[TrialRecord]()
    count = max(FEWEST, round(SHARE * len(part)))
    at_once = trainer.at_once(images)
    each = (first_look(at_once) + closer_look(at_once) + 2) * budget.training
    while len(trials) < TRIALS and FEWEST <= count <= MOST * len(part):
        if not budget.allows(f"the audit of a copy with a known trigger on {count} images", each):
            break
        trials.append(_trial(setup, plan, label, count, kept))
        down = trials[0].seen
        if trials[-1].seen != down:
            break
        count = count // 2 if down else 2 * count
    if not trials:
        return None
    return PowerRecord(
        size=size, label=label, class_name=images.classes[label], side=part.shape[1:], trials=tuple(trials)
    )


def _trial(setup: Injection, plan: Attack, label: int, count: int, kept: Kept) -> TrialRecord:
    """One copy, audited."""
    found = kept.arrays(STAGE, f"trigger on {count} images", lambda: _audited(setup, plan, label, count, kept))
    success, level, true, false = found["trial"].tolist()
    return TrialRecord(images=count, success=success, level=LEVELS[int(level)], found=int(true), false=int(false))


def _audited(setup: Injection, plan: Attack, label: int, count: int, kept: Kept) -> dict[str, NDArray[Any]]:
    """Success, level, images found and others flagged, of a copy with ``count`` images that bear the trigger."""
    made, seed = poison(setup.images, plan, count=count, seed=setup.seed), setup.seed + count
    images, bad = made.images, made.truth.poisoned
    own = Kept(kept.below(f"power-{count}").folder)  # its stages are no stages of this audit
    if setup.anew is not None:
        net = setup.anew.kept(own, STAGE, f"net with {count}", images, seed)
    else:
        net = setup.trainer.longer().fit(images, np.ones(len(images), bool), seed).classifier
    others = np.flatnonzero(~bad & (images.labels != label))
    rows = np.sort(np.random.default_rng(seed).permutation(others)[:_TRIED])
    success = asr(net, images.subset(rows), plan, seed=seed).value
    looked = look_once(
        images,
        net,
        setup.trainer,
        clean=None,
        level=setup.level,
        believed=LIKE_OTHERS,
        number=1,
        seed=seed,
        budget=Budget(),
        kept=own,
        plainly=True,
    )
    level = LEVELS.index(next((t.level for t in looked.targets if t.label == label), "nothing found"))  # type: ignore[arg-type]
    flagged = looked.suspects
    return {"trial": np.array([success, level, (flagged & bad).sum(), (flagged & ~bad).sum()], np.float64)}


def _middle(labels: NDArray[np.int64], classes: int) -> int:
    """The class of middle size, so that the statement holds for a usual one."""
    counts = np.bincount(labels, minlength=classes)
    present = np.flatnonzero(counts)
    return int(present[np.argsort(counts[present], kind="stable")][len(present) // 2])
