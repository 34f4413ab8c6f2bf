"""The experiment: train again without the suspects and, as control, without as many random images of their class."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from doorward.audits.parts.kept import Arrays, Kept
from doorward.audits.parts.trainer import Fits, Pixels, Rows, Trained
from doorward.cleansers.parts.carried import LARGEST
from doorward.cleansers.parts.stamping import stamped, success, tried_on
from doorward.core.images import ImageSet
from doorward.core.triggers import Stamp

STAGE = "experiment"
REPEATS = 3
LOOKS = 2  # at most: where an arm scatters, three repeats more; every p-value is multiplied by it
_KEEPS = 0.4  # of the control's success: below that the trigger has lost it
_DROP = 0.2  # of success, at least
# Or from so much to a share of it: where every class is sent to the next one, a trigger works on few pictures.
_FROM, _NOTHING = 0.08, 0.1
_MOSTLY = 0.5  # share of the suspects that nets without them decide as labelled, up to which they are mislabelled
_SURE = 0.5  # probability from which a net is said to decide for a label
POISONED = 0.05  # probability of its label, to nets without suspects, up to which a suspect is poisoned
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Arms:
    """What came out for one class.

    Args:
        label: the class.
        size: suspects that were left out.
        trigger: number of the one that counts.
        without: its success per repeat, of nets trained without the suspects; empty without any trigger.
        control: the same of nets trained without as many random images of the class.
        images: that the trigger was tried on.
        unseen_with: share of suspects that a net decides as labelled which knows the others of them, per repeat.
        unseen_without: the same of nets that know none of them.
        others: share of the class's random images that the controls left out which they decide as labelled, per repeat;
            missing where there were none.
        p_value: that the trigger's success is the same in both arms (Welch's t-test on arcsine square roots); 1 where
            it does not fall to 40 % and by 20 points, or to a tenth: hard images of a class make its natural triggers a
            little better. Corrected for triggers and looks.
        p_unseen: the same of the suspects' own decisions.
    """

    label: int
    size: int
    trigger: int
    without: Floats
    control: Floats
    images: int
    unseen_with: Floats
    unseen_without: Floats
    others: Floats
    p_value: float
    p_unseen: float

    def trigger_stops(self, level: float) -> bool:
        """Whether the trigger works with the suspects and not without them."""
        return self.p_value <= level

    def suspects_bring_it(self, works: float) -> bool:
        """Whether it can be these suspects that the trigger came with.

        With them among its images a copy of the model has to take the trigger up again, and nets that know none of
        them must not decide most of them as labelled: without half of its images of a kind a class's natural trigger
        loses much of its success, too.

        Args:
            works: success on the suspect model of the trigger, where copies of it are trained on; else 0.
        """
        comes_back = len(self.control) == 0 or float(self.control.mean()) >= _KEEPS * works
        return comes_back and self.as_labelled <= _MOSTLY

    @property
    def as_labelled(self) -> float:
        """Share of the suspects that nets which know none of them decide as labelled."""
        return float(np.nanmean(self.unseen_without)) if np.isfinite(self.unseen_without).any() else 0.0

    def suspects_teach(self, level: float) -> bool:
        """Whether suspects teach a net the label of other suspects, which nothing else in the set does."""
        return self.p_unseen <= level


@dataclass(frozen=True, eq=False)
class Experiment:
    """All arms: what came out by class, and the images ``[N]`` that they show to be poisoned with their scores.

    ``copied``: classes whose arms were copies of the suspect model, trained on.
    """

    arms: dict[int, Arms] = field(default_factory=dict)
    score: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    poisoned: Rows = field(default_factory=lambda: np.zeros(0, bool))
    copied: frozenset[int] = frozenset()

    def replaced(self, other: Experiment, labels: NDArray[np.int64]) -> Experiment:
        """This one, with the classes of another in place of its own; ``labels``: ``[N]``, of the images."""
        own = np.isin(labels, list(other.arms))
        score, poisoned = np.where(own, other.score, self.score), np.where(own, other.poisoned, self.poisoned)
        return Experiment({**self.arms, **other.arms}, score, poisoned, self.copied | frozenset(other.arms))


def experiment(
    images: ImageSet,
    suspects: Rows,
    triggers: Mapping[int, Sequence[Stamp]],
    owned: Rows,
    trainer: Fits,
    seed: int,
    kept: Kept,
    again: Collection[int] = (),
    level: float = 0.05,
) -> Experiment:
    """Train both arms three times, with equal seeds, and measure; three times more where that leaves a class open.

    A control leaves out a third of the suspects, another third each time, and random images of the same class to make
    up the number. So every suspect is decided once by a net that knows its like and not itself, and three times by
    nets that know neither. Poisoned images teach each other's label, and a found trigger works, in the controls alone.
    Of the suspects those are poisoned to which the three nets together give a probability of at most 5 % of being what
    their label says: a clean image that is merely hard is seldom so clear.

    Args:
        suspects: ``[N]``; those of the classes in ``triggers`` are left out, the others stay.
        triggers: class to the triggers whose success is measured; may be empty. The clearest counts, and its p-value
            is multiplied by their number.
        owned: ``[N]``, where the suspect model decides as labelled.
        again: classes that may be left open: those that something else speaks against; so do suspects that teach each
            other's label. In others more repeats would only show that hard images make a class's natural triggers a
            little better.
        level: a class is left open by the first look whose trigger falls, or whose suspects are decided as labelled
            less often without the others, but with larger p-values.

    Returns: arms by class, none without suspects, nor where they are more than 60 % of their class: a net that has
        seen too little of a class does not know it, and natural triggers stop as well. ``score`` is one minus the
        label's probability to nets without suspects, 0 for images that are no suspects.

    Fails when: the suspects are a small part of the poisoned images; or they are a natural kind of their own, such as
        one breed of a class: then they teach each other's label too, but no trigger stops.
    """
    labels = sorted(k for k in triggers if _is_part(suspects, images.labels == k))
    out = suspects & np.isin(images.labels, labels)
    if not out.any():
        return Experiment(score=np.zeros(len(images), np.float32), poisoned=np.zeros(len(images), bool))
    folds = _folds(out, images.labels, seed)
    some = {label: tried_on(images, label, suspects, seed) for label in labels}
    marked = {(k, n): stamped(some[k], t, seed) for k in labels for n, t in enumerate(triggers[k])}
    free, knowing, found = list[Arrays](), list[Arrays](), dict[int, Arms]()
    spoken = set(again)
    rows = np.flatnonzero(out)
    for look in range(LOOKS):
        steps: dict[str, Callable[[], Arrays]] = {}
        for number in range(look * REPEATS, (look + 1) * REPEATS):
            left = (out & (folds == number % REPEATS)) | _random_others(out, folds, number, images.labels, seed)
            for name, gone in (("without", out), ("control", left)):

                def make(gone: Rows = gone, number: int = number) -> Arrays:
                    net = trainer.fit(images, ~gone, seed + number, among=out)
                    return _measured(net, images, out, gone & ~out, marked)

                steps[f"{name} {number + 1}"] = make
        made = kept.several(STAGE, steps, trainer.at_once(images))
        free, knowing = free + made[::2], knowing + made[1::2]
        for k in labels if look == 0 else spoken:
            if (own := images.labels[rows] == k).any():
                found[k] = _arms(k, len(triggers[k]), own, folds[rows], (free, knowing), len(some[k]))
        share = level / len(labels)
        spoken = {k for k, arms in found.items() if k in again or arms.suspects_teach(share)}
        if not any(_open(found[k], share) for k in spoken):
            break
    score = np.zeros(len(images), np.float32)
    score[rows] = 1 - np.mean([found["confidence"] for found in free], axis=0)
    return Experiment(found, score, (score >= 1 - POISONED) & owned)


def _is_part(suspects: Rows, own: Rows) -> bool:
    """Whether a class is left when its suspects are gone."""
    return int((suspects & own).sum()) <= LARGEST * int(own.sum())


def _open(arms: Arms, level: float) -> bool:
    """Whether the trigger's success falls, or that of the suspects' teaching, and more repeats may show it."""
    return arms.p_value > level and (arms.p_value < 1 or level < arms.p_unseen < 1)


def _measured(
    net: Trained, images: ImageSet, out: Rows, others: Rows, marked: Mapping[tuple[int, int], Pixels]
) -> Arrays:
    """Probability of their label for the suspects, share of every class's others as labelled, every trigger's success.

    Args:
        others: images ``[N]`` that are no suspects, and that the net does not know either.
    """
    rates = {f"success {k} {n}": np.array(success(net.decide, made, k)) for (k, n), made in marked.items()}
    if others.any():
        sure, labels = net.confidence(images.subset(others)) > _SURE, images.labels[others]
        rates |= {f"others {k}": np.array(sure[labels == k].mean()) for k in np.unique(labels).tolist()}
    return {"confidence": net.confidence(images.subset(out)), **rates}


def _folds(out: Rows, labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A third for every suspect, by class, ``[N]``."""
    rng, found = np.random.default_rng(seed), np.zeros(len(out), np.int64)
    for label in np.unique(labels[out]):
        rows = rng.permutation(np.flatnonzero(out & (labels == label)))
        found[rows] = np.arange(len(rows)) % REPEATS
    return found


def _random_others(out: Rows, folds: NDArray[np.int64], number: int, labels: NDArray[np.int64], seed: int) -> Rows:
    """Images ``[N]`` of the suspects' classes that are none, as many as suspects stay in this control."""
    rng, found = np.random.default_rng([seed, number]), np.zeros(len(out), bool)
    for label in np.unique(labels[out]):
        own = labels == label
        stay = int((out & own & (folds != number % REPEATS)).sum())
        others = np.flatnonzero(own & ~out)
        found[rng.permutation(others)[: min(stay, len(others) // 2)]] = True
    return found


def _arms(
    label: int,
    triggers: int,
    own: Rows,
    folds: NDArray[np.int64],
    results: tuple[Sequence[Arrays], Sequence[Arrays]],
    tried: int,
) -> Arms:
    """What the arms come to for one class; ``own``: which of the suspects are of it."""
    free, knowing = results
    best = (1.0, 0, np.zeros(0), np.zeros(0))
    for number in range(triggers):
        without, control = (np.array([float(f[f"success {label} {number}"]) for f in arm]) for arm in results)
        p = min(1.0, LOOKS * triggers * _welch(control, without, tried)) if _drops(control, without) else 1.0
        if number == 0 or p < best[0]:
            best = (p, number, without, control)
    alone = np.array([float((one["confidence"][own] > _SURE).mean()) for one in free])
    third = [own & (folds == number % REPEATS) for number in range(len(knowing))]
    pairs = zip(knowing, third, strict=True)
    unseen = np.array([float((one["confidence"][t] > _SURE).mean()) if t.any() else np.nan for one, t in pairs])
    others = np.array([float(one.get(f"others {label}", np.nan)) for one in knowing])
    p_unseen = min(1.0, LOOKS * _welch(unseen, alone, int(own.sum()))) if _drops(unseen, alone) else 1.0
    return Arms(label, int(own.sum()), best[1], best[2], best[3], tried, unseen, alone, others, best[0], p_unseen)


def _drops(high: Floats, low: Floats) -> bool:
    """Whether one arm's rates are far below the other's, or nothing is left of them."""
    with np.errstate(invalid="ignore"):
        above, below = float(np.mean(high)), float(np.mean(low))
    much = below <= _KEEPS * above and above - below >= _DROP
    return bool(much or (above >= _FROM and below <= _NOTHING * above))


def _welch(high: Floats, low: Floats, trials: int) -> float:
    """One-sided p-value that the first rates are no larger; 1 where one is missing.

    The variance of an arm is at least that of a share of so many trials, on the arcsine scale.
    """
    from scipy.stats import t

    if not (np.isfinite(high).all() and np.isfinite(low).all()):
        return 1.0
    one, other = (np.arcsin(np.sqrt(np.clip(v, 0, 1))) for v in (high, low))
    floor = 1 / (4 * max(trials, 1))
    a, b = (max(float(v.var(ddof=1)), floor) / len(v) for v in (one, other))
    freedom = (a + b) ** 2 / (a**2 / (len(one) - 1) + b**2 / (len(other) - 1))
    return float(t.sf((one.mean() - other.mean()) / np.sqrt(a + b), freedom))
