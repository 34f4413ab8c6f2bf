"""The verb: the loop over all the others, and one verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from doorward.audits.alone import audit_model
from doorward.audits.doubts import beside_nothing, doubts, no_witness, undecided
from doorward.audits.gathering import Budget
from doorward.audits.parts.afterwards import joined, unlearned
from doorward.audits.parts.anew import Anew, nets_like
from doorward.audits.parts.elsewhere import STAGE as ELSEWHERE
from doorward.audits.parts.elsewhere import Places, elsewhere, shown_groups
from doorward.audits.parts.kept import Kept
from doorward.audits.parts.suited import Suited, suited
from doorward.audits.parts.trainer import Rows, Trainer, make_trainer
from doorward.audits.plan import measure_costs
from doorward.audits.power import power_of
from doorward.audits.records import AuditRecord, StageRecord
from doorward.audits.results import Audit, Table
from doorward.audits.rounds import Round, look_once
from doorward.audits.show import pictures
from doorward.audits.verdict import LEANS, LIKE_OTHERS, findings, judge, speaking
from doorward.cleansers.parts.carried import Carrier
from doorward.core.arguments import check_images, check_model
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.core.results import FINDINGS, ClassifierRecord, ImagesRecord, RateRecord
from doorward.core.stats import Rate
from doorward.core.triggers import Trigger
from doorward.models.open.architectures import Named

MOST_ROUNDS = 6


def audit(
    images: ImageSet | None,
    model: Classifier | None = None,
    clean: ImageSet | None = None,
    *,
    minutes: float | None = None,
    level: float = 0.05,
    net: Named | None = None,
    power: bool = False,
    seed: int = 0,
    device: str = "auto",
    folder: Path | str | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Audit a training set and the model that was trained on it; or a set alone; or a model alone.

    A round gathers four kinds of evidence against every class: the cleansers; images whose label only their own kind
    supports (`doorward.audits.parts.contradiction`); whether what they have in common sends other images to their
    class (`doorward.audits.parts.transfer`); and inversion. It looks into at most three classes, gathers their
    suspects (`doorward.audits.parts.grow`), and makes the experiment (`doorward.audits.experiment`). What is found is
    taken out and the round repeated, six times at most, until nothing stands out. Where groups plainly carry a
    trigger (`doorward.cleansers.methods.transfer`), or the one that a round has shown
    (`doorward.audits.parts.elsewhere`), a round does with these.

    Args:
        images: the training set, as it was trained on; None to audit a model alone, with clean images.
        model: trained on it; None trains one.
        clean: images known to be clean, with their labels; used to invert the model instead of images of the set.
        minutes: that the audit may take, about; what is left out for that is said in the verdict.
        level: chance of a verdict against a clean set.
        net: architecture to train where no model is given, and the model's own where one is; by default small-cnn.
        power: whether to say how few poisoned images would have been found, by planting a known trigger into copies of
            the set (`doorward.audits.power`); as long as two to four audits more. Not of a model alone.
        seed: of everything random.
        device: ``auto``, ``cpu``, ``cuda``; of a model that is given its own.
        folder: keeps finished steps, so that the same call goes on from there; removed by the caller.
        progress: called with (stage, 0, 0, what is being done).

    Returns:
        the verdict, suspects, triggers, and a model trained without the suspects where there are some.

    Raises:
        DoorwardError: neither images nor model, images that do not fit the model, a level outside (0, 1).

    Fails when: labels are true (clean-label attacks); poisoned images are fewer than about half a percent of the set;
        a class has a natural kind of its own, which `suspicious` may name; nets of the audit hardly learn the set.
    """
    if not 0 < level < 1:
        raise DoorwardError(f"audit: level {level}; expected a number between 0 and 1")
    if clean is not None:
        check_images("audit", "clean", clean)
    if images is None:
        if model is None or clean is None:
            raise DoorwardError("audit: no training set; expected one, or a model and clean images")
        check_model("audit", model)
        return audit_model(model, clean, level=level, seed=seed, progress=progress)
    check_images("audit", "images", images)
    kept = Kept.resumed(None if folder is None else Path(folder), progress)
    budget = Budget(minutes)
    nets = suited(images, make_trainer(images, net, device if model is None else str(model.device)), seed, kept)
    trainer = nets.trainer
    suspect = model
    if model is None:
        suspect = Anew(trainer, net).kept(kept, "train", "model", images, seed)
    assert suspect is not None
    check_model("audit", suspect)
    if minutes is not None:
        with kept.timed("plan"):
            kept.tell("plan", "a part of every stage is tried")
            costs = measure_costs(images, suspect, trainer, clean, seed)
            budget.training, budget.inversion = costs.training, costs.inversion
    anew = nets_like(model, net, trainer)
    looked = _rounds(images, suspect, trainer, anew, clean, level, seed, budget, kept)
    given = model is not None
    result = _result(images, suspect, looked, nets, budget, kept, anew, level=level, seed=seed, given=given)
    if not power:
        return result
    planted = power_of(images, ~result.suspected(), trainer, anew, level=level, seed=seed, budget=budget, kept=kept)
    more = {"power": planted, "stages": _stages(kept), "left_out": tuple(budget.left_out)}
    return replace(result, facts=result.facts.model_copy(update=more))


class _Looked(NamedTuple):
    """Rounds, the images ``[N]`` that each of them looked at, and what is handed on.

    That is the net of the last round, where it was trained anew on what is left and the round found nothing.
    """

    rounds: list[Round]
    images: list[Rows]
    last: Classifier | None


def _rounds(
    images: ImageSet,
    model: Classifier,
    trainer: Trainer,
    anew: Anew | None,
    clean: ImageSet | None,
    level: float,
    seed: int,
    budget: Budget,
    kept: Kept,
) -> _Looked:
    """Rounds until one finds nothing more."""
    rounds, looked_at = list[Round](), list[Rows]()
    stay, suspect, plainly = np.ones(len(images), bool), model, True
    fresh: Classifier | None = None
    shown: dict[int, Places] = {}
    for number in range(1, MOST_ROUNDS + 1):
        part = images if stay.all() else images.subset(stay)
        known = list[Carrier]()
        whole, asked = images, model  # as this round has its pictures, and who says what a trigger does on them
        if not stay.all():
            if not budget.allows(f"another look at what is left (round {number})", 8 * budget.training):
                break
            if rounds[-1].learned and anew is not None and trainer.shape is None:
                suspect = fresh = anew.kept(kept, "retrain", f"net of round {number}", part, seed + number)
            elif rounds[-1].learned:
                suspect = trainer.longer().fit(part, np.ones(len(part), bool), seed + number).classifier
                if trainer.shape is not None:
                    whole, asked = replace(images, pixels=trainer.fitted(images.pixels)), suspect
                    part = whole.subset(stay)
            else:
                suspect = unlearned(part, model, np.zeros(len(part), bool), joined([r.stamps for r in rounds]), seed)
            with kept.timed(ELSEWHERE):
                known = elsewhere(whole, asked, shown, stay, seed)
        lacking = len(budget.left_out)
        here = look_once(
            part,
            suspect,
            trainer,
            clean=clean if stay.all() else None,
            level=level,
            believed=LIKE_OTHERS if stay.all() else LEANS,  # after a finding the rest of a set is not gone through
            number=number,
            seed=seed + 100 * (number - 1),
            budget=budget,
            kept=kept.below(f"round-{number}"),
            plainly=plainly,
            known=known,
        )
        rounds.append(here)
        looked_at.append(stay.copy())
        if not here.suspects.any():
            if not here.plainly or len(budget.left_out) > lacking:  # another look would lack the same time
                break
            if not known:  # groups that carry something, and no experiment that shows it: everything is looked at
                plainly = False
        out = np.flatnonzero(stay)[here.suspects]
        stay[out] = False
        fresh, shown = None, shown_groups(images, out, here.triggers)
    return _Looked(rounds, looked_at, fresh)


def _result(
    images: ImageSet,
    model: Classifier,
    looked: _Looked,
    nets: Suited,
    budget: Budget,
    kept: Kept,
    anew: Anew | None,
    *,
    level: float,
    seed: int,
    given: bool,
) -> Audit:
    """Everything in one record."""
    rounds, last = looked.rounds, looked.last
    targets, triggers = [t for here in rounds for t in here.targets], dict[int, Trigger]()
    for here in reversed(rounds):
        triggers |= here.triggers
    table = _per_image(images, model.predict(images.pixels), looked, level)
    suspects = table.suspect
    accuracy = Rate(int((table.predicted == images.labels).sum()), len(images))
    warnings = [w for here in rounds for w in here.warnings] + doubts(images, accuracy.value, given)
    judgement = judge(
        targets,
        rounds[0].evidence.together,
        suspects=int(suspects.sum()),
        undecided=undecided(images, accuracy.value, budget),
        doubted=no_witness(accuracy.value),
        left_out=budget.left_out,
        beside=beside_nothing(nets, rounds[0].evidence.together, images.classes),
    )
    repaired, how = last, "" if last is None else "anew"
    if suspects.any() and repaired is None:
        how = "on" if anew is None else "anew"
        if anew is not None:
            repaired = anew.kept(kept, "retrain", "without the suspects", images.subset(~suspects), seed)
        else:
            with kept.timed("retrain"):
                kept.tell("retrain", "without the suspects")
                repaired = unlearned(images, model, suspects, joined([r.stamps for r in rounds]), seed)
    named = [t.label for t in speaking(targets)] if judgement.level in FINDINGS else []
    table = replace(table, doubtful=table.doubtful & np.isin(images.labels, named))
    shown, places = pictures(images, suspects, table.doubtful, triggers, seed)
    ordered = {t.label: table.ranked(suspects & (images.labels == t.label)) for t in targets}
    facts = AuditRecord(
        judgement=judgement,
        findings=findings(targets, ordered, images.ids if images.named else ()) if judgement.level in FINDINGS else (),
        images=ImagesRecord.of(images),
        classifier=ClassifierRecord(arch=model.arch, accuracy_on_images=RateRecord.of(accuracy)),
        trained=not given,
        net=str(nets.trainer.net),
        unseen=nets.unseen,
        handed_on=how,
        seed=seed,
        level=level,
        rounds=len(rounds),
        targets_looked_into=tuple(targets),
        suspects=int(suspects.sum()),
        doubtful=int(table.doubtful.sum()),
        stages=_stages(kept),
        left_out=tuple(budget.left_out),
        warnings=tuple(dict.fromkeys(warnings)),
        thumbnails=places,
    )
    first = rounds[0]
    return Audit(facts, table, triggers, images, model, repaired, first.cleansing, first.inversion, shown)


def _per_image(images: ImageSet, predicted: NDArray[np.int64], looked: _Looked, level: float) -> Table:
    """What all rounds say, by image."""
    suspects, doubtful = np.zeros((2, len(images)), bool)
    score, evidence = np.zeros(len(images), np.float32), [""] * len(images)
    for here, part in zip(looked.rounds, looked.images, strict=True):
        rows, told = np.flatnonzero(part), here.suspects | here.doubtful
        suspects[rows[here.suspects]] = True
        doubtful[rows[here.doubtful]] = True
        score[rows[told]] = here.score[told]
        for target in here.targets:
            for row in rows[told & (images.labels[rows] == target.label)].tolist():
                evidence[row] = _kinds(target.evidence, level, shown=bool(suspects[row]))
    ids = tuple(str(i) for i in images.ids) if images.named else tuple(map(str, range(len(images))))
    return Table(images.labels, predicted, suspects, doubtful & ~suspects, score, tuple(evidence), ids)


def _stages(kept: Kept) -> tuple[StageRecord, ...]:
    return tuple(StageRecord(name=n, seconds=round(s, 2)) for n, s in kept.seconds.items())


def _kinds(evidence: dict[str, float | None], level: float, *, shown: bool) -> str:
    """Kinds that accuse a class, and the experiment where it shows something."""
    kinds = [k for k, p in evidence.items() if p is not None and p <= level]
    return "+".join([*kinds, "experiment"] if shown else kinds)
