"""One round of an audit: gather evidence on a set and its model, look into classes, make the experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from doorward.audits.closer import Case, Named, looked_into, stamps_of
from doorward.audits.doubts import at_most_suspicious
from doorward.audits.evidence import PLAIN, WORKS, WORKS_WELL, Evidence, candidates, gather
from doorward.audits.experiment import Arms, Experiment
from doorward.audits.gathering import Budget, gathered, inverted_triggers
from doorward.audits.parts.afterwards import Stamps
from doorward.audits.parts.contradiction import Contradictions
from doorward.audits.parts.copies import copy_seconds
from doorward.audits.parts.cutout import cut_out
from doorward.audits.parts.groups import best_of, carrying
from doorward.audits.parts.kept import Kept
from doorward.audits.parts.trainer import Rows, Trainer
from doorward.audits.plan import closer_look
from doorward.audits.records import ArmsRecord, TargetRecord
from doorward.audits.verdict import LEANS, confirmed, leans, level_of, sentence, taken_back, told_otherwise
from doorward.cleansers.parts.carried import Carrier
from doorward.cleansers.parts.stamping import stamped, success, tried_on
from doorward.cleansers.results import Cleansing
from doorward.cleansers.verdict import POOR_ACCURACY
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.results import FINDINGS
from doorward.core.triggers import Stamp, Trigger, trigger_file
from doorward.inversion.results import Inversion

MOST = 3  # classes that one experiment is made for
HARD = 0.2  # p-value up to which classes are looked into where nets do not learn the set well


@dataclass(frozen=True, eq=False)
class Round:
    """What one round found.

    Args:
        targets: classes that were looked into.
        suspects: ``[N]``, images to leave out. ``doubtful``: those of accused classes that the experiment does not show
            to be poisoned. ``score``: of each, `doorward.audits.experiment`.
        triggers: class to the trigger that was measured. ``stamps``: all that work, of the classes with suspects.
        learned: whether nets that are trained anew learn the set; else copies were trained on.
        plainly: whether groups that plainly carry a trigger were looked into, and nothing else.
    """

    evidence: Evidence
    targets: tuple[TargetRecord, ...]
    suspects: Rows
    doubtful: Rows
    score: np.ndarray
    triggers: dict[int, Trigger]
    cleansing: Cleansing | None
    inversion: Inversion | None
    warnings: tuple[str, ...] = ()
    stamps: Stamps = field(default_factory=dict)
    learned: bool = True
    plainly: bool = False


def look_once(
    images: ImageSet,
    model: Classifier,
    trainer: Trainer,
    *,
    clean: ImageSet | None,
    level: float,
    believed: float,
    number: int,
    seed: int,
    budget: Budget,
    kept: Kept,
    plainly: bool,
    known: Sequence[Carrier] = (),
) -> Round:
    """Gather every kind of evidence, look into the classes that it speaks against, make the experiment.

    Args:
        clean: images to invert on; by default those of the set that do not contradict their label.
        believed: see `doorward.audits.evidence.candidates`.
        number: of the round, from 1.
        plainly: whether to do with groups that plainly carry a trigger, where there are some: see `gathered`.
        known: groups that bear a trigger which an earlier round showed; they are looked into, and nothing else.
    """
    warnings = list[str]()
    seen = gathered(
        images, model, trainer, clean, level, number, seed, budget, kept, warnings, plainly=plainly, known=known
    )
    owned, found, inversion, carried = seen.owned, seen.found, seen.inversion, seen.carried
    evidence = gather(images, model, found, seen.cleansing, inversion, carried, seed)
    if found.looked:
        found = replace(found, suspects=found.suspects | (seen.cleansing.suspected() & owned))
    counts = np.bincount(images.labels[found.suspects], minlength=len(images.classes)).tolist()
    chosen = [one.label for one in known] or _classes(evidence, found, counts, believed)
    found = replace(found, suspects=found.suspects | (_carrying(carried, chosen, len(images)) & owned))
    again = tuple(k for k in chosen if _spoken_against(evidence, k, level))
    asked = partial(_triggers, evidence, inversion, model, images, found, seed)
    triggers = {k: asked(0.0 if known else WORKS, k) for k in chosen}
    for k in again:
        if not asked(PLAIN, k) and (window := cut_out(images, model, k, found.suspects, seed)) is not None:
            triggers[k]["window"] = window
    case = Case(images, model, seen.features, owned, found, triggers, trainer, again, seen.flagged, seed, kept, level)
    how = "anew" if found.learned or case.grouped else "on"
    nothing = Experiment(), np.zeros(len(images), bool)
    hardly = not found.learned and owned.mean() < POOR_ACCURACY
    tried, out = looked_into(case) if _afforded(case, budget, anew=how == "anew") else nothing
    score = tried.score if len(tried.score) else np.zeros(len(images), np.float32)
    targets, best, doubtful = [], dict[int, Trigger](), np.zeros(len(images), bool)
    for k in chosen:
        arms, own = tried.arms.get(k), images.labels == k
        measured = _measured(k, triggers[k], arms, images, model, seed)
        record = None
        if arms is not None:
            trained = "on" if k in tried.copied else how
            record = _record(
                arms, level / len(chosen), trained, measured[2], single=not case.grouped, known=bool(known)
            )
        unopposed = found.learned and found.looked and not (found.suspects & own).any()
        row = _target(k, number, images, evidence, measured, record, level, unopposed=unopposed, hardly=hardly)
        if hardly or not _shown(row, level):
            doubtful |= (found.suspects if arms is None else score > 0) & own & (row.level in FINDINGS)
            out = out & ~own
        if isinstance(measured[1], Trigger):
            best[k] = measured[1]
        row = row.model_copy(update={"suspects": int((out & own).sum()), "doubtful": int((doubtful & own).sum())})
        targets.append(row.model_copy(update={"sentence": sentence(row)}))
    return Round(
        evidence=evidence,
        targets=tuple(targets),
        suspects=out,
        doubtful=doubtful,
        score=score,
        triggers=best,
        cleansing=seen.cleansing,
        inversion=inversion,
        warnings=tuple(warnings),
        stamps={k: some for k, some in stamps_of(triggers).items() if (out & (images.labels == k)).any()},
        learned=found.learned,
        plainly=not found.looked,
    )


def _afforded(case: Case, budget: Budget, *, anew: bool) -> bool:
    """Whether there is a class to look into, and time for it."""
    if not case.triggers:
        return False
    one = budget.training if anew or budget.minutes is None else copy_seconds(case.model, case.images, case.seed)
    trainings = closer_look(case.trainer.at_once(case.images) if anew else 1) * one
    return budget.allows("locating the suspects and the experiment", trainings)


def _classes(evidence: Evidence, found: Contradictions, counts: Sequence[int], believed: float) -> list[int]:
    """The classes to look into; see `candidates`."""
    believed = believed if found.looked else LEANS
    return candidates(evidence, counts, MOST, believed if found.learned else min(believed, HARD))


def _spoken_against(evidence: Evidence, label: int, level: float) -> bool:
    """Whether the tests accuse a class, or a group of it plainly carries a trigger."""
    together = evidence.together
    accused = together is not None and float(together.classes[label]) <= level
    return accused or evidence.rates.get(label, 0.0) >= PLAIN


def _carrying(carried: Sequence[Carrier], chosen: Sequence[int], count: int) -> Rows:
    """Images ``[count]`` of the chosen classes in groups whose trigger works."""
    found, best = np.zeros(count, bool), best_of(carried)
    for label in chosen:
        if label in best and best[label].success >= WORKS_WELL:
            found |= carrying(carried, label, count)
    return found


def _triggers(
    evidence: Evidence,
    inversion: Inversion | None,
    model: Classifier,
    images: ImageSet,
    found: Contradictions,
    seed: int,
    least: float,
    label: int,
) -> Named:
    """A class's triggers by what found them, as far as they work on the suspect model, on ``least`` of the pictures."""
    made: Named = {}
    if label in evidence.triggers:
        made["transfer"] = evidence.triggers[label]
    made |= inverted_triggers(inversion, label)
    pictures = tried_on(images, label, found.suspects, seed)
    return {n: s for n, s in made.items() if success(model.predict, stamped(pictures, s, seed), label) >= least}


def _measured(
    label: int, triggers: Named, arms: Arms | None, images: ImageSet, model: Classifier, seed: int
) -> tuple[str, Stamp | None, float | None]:
    """The trigger of a class that counts: what found it, itself, and its success on the suspect model."""
    named = list(triggers.items())
    if not named:
        return "", None, None
    which, trigger = named[arms.trigger if arms is not None else 0]
    pictures = tried_on(images, label, np.zeros(len(images), bool), seed)
    return which, trigger, success(model.predict, stamped(pictures, trigger, seed), label)


def _target(
    label: int,
    number: int,
    images: ImageSet,
    evidence: Evidence,
    measured: tuple[str, Stamp | None, float | None],
    record: ArmsRecord | None,
    level: float,
    *,
    unopposed: bool,
    hardly: bool,
) -> TargetRecord:
    """The row of a class.

    Args:
        measured: see `_measured`.
        unopposed: see `taken_back`. ``hardly``: whether no net has learned the set.
    """
    (which, trigger, works), together = measured, evidence.together
    kinds, back = evidence.of(label), taken_back(record, unopposed=unopposed)
    p = told_otherwise(kinds, None if together is None else float(together.classes[label]), back)
    found = level_of(kinds, p, record, level, back)
    return TargetRecord(
        label=label,
        class_name=images.classes[label],
        round=number,
        level=at_most_suspicious(found) if hardly else found,
        evidence=kinds,
        p_value=p,
        trigger=trigger_file(label) if isinstance(trigger, Trigger) else "",
        trigger_from=which,
        success=works,
        experiment=record,
    )


def _shown(row: TargetRecord, level: float) -> bool:
    """Whether a class's suspects are flagged: the experiment shows it, or the tests do and a group hangs together."""
    if row.experiment is None:
        return False
    if confirmed(row.experiment, row.p_value) or (row.experiment.teaches and leans(row.p_value)):
        return True
    together = row.p_value is not None and row.p_value <= level
    return together and row.experiment.p_unseen is not None and row.experiment.p_unseen <= level


def _record(arms: Arms, level: float, how: str, works: float | None, *, single: bool, known: bool) -> ArmsRecord:
    """Plain values.

    Args:
        works: success of the trigger on the suspect model; None without one.
        single: whether suspects are known one by one, so that their teaching says something.
        known: whether an earlier round has shown the trigger to be planted.
    """
    return ArmsRecord(
        size=arms.size,
        control=tuple(arms.control.tolist()),
        without=tuple(arms.without.tolist()),
        tried=arms.images,
        unseen_control=tuple(arms.unseen_with.tolist()),
        unseen_without=tuple(arms.unseen_without.tolist()),
        others=tuple(arms.others.tolist()),
        p_value=arms.p_value,
        p_unseen=arms.p_unseen,
        stops=arms.trigger_stops(level) and arms.suspects_bring_it(works or 0.0 if how == "on" else 0.0),
        plain=known or (works or 0.0) >= PLAIN,
        teaches=single and arms.suspects_teach(level),
        trained=how,
    )
