"""What an audit would do, and about how long every stage takes here: a part of each is tried."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from doorward.audits.alone import check_several
from doorward.audits.experiment import REPEATS
from doorward.audits.parts.anew import DEFAULT_NET
from doorward.audits.parts.contradiction import TRAININGS
from doorward.audits.parts.grow import ROUNDS
from doorward.audits.parts.kept import Kept
from doorward.audits.parts.suited import suited
from doorward.audits.parts.trainer import Trainer, make_trainer
from doorward.cleansers.parts.clusters import CLUSTERS
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.plan import Plan, about, at_pace
from doorward.core.text import duration
from doorward.inversion.invert import DEFAULT_METHODS
from doorward.inversion.plan import plan_inversion
from doorward.models.open.architectures import Named

INVERTED = 1000  # images that triggers are searched on
_OF_ALL = 0.5  # of the time of all its steps that an inversion takes: classes come to rest before the last one


@dataclass(frozen=True)
class Costs:
    """Seconds of one training of the audit, and of the inversion; 0 where they were not measured."""

    training: float = 0.0
    inversion: float = 0.0


def first_look(at_once: int) -> float:
    """Trainings one after another that contradictions come to."""
    return CLUSTERS / min(at_once, CLUSTERS) + TRAININGS - CLUSTERS


def closer_look(at_once: int) -> float:
    """The same of locating suspects and of the experiment."""
    return ROUNDS + 2 * REPEATS / min(at_once, 2 * REPEATS)


def measure_costs(images: ImageSet, model: Classifier, trainer: Trainer, clean: ImageSet | None, seed: int) -> Costs:
    """Try two epochs, and a few steps of the inversion."""

    def train_for(epochs: int) -> None:
        short = replace(trainer, settings=trainer.settings.model_copy(update={"epochs": epochs}))
        short.fit(images, np.ones(len(images), bool), seed)

    training = at_pace(train_for, 1, 2, trainer.settings.epochs)
    return Costs(training, inversion_seconds(images, model, clean, seed))


def inversion_seconds(images: ImageSet, model: Classifier, clean: ImageSet | None, seed: int) -> float:
    """Seconds of the inversion, about, by a few of its steps."""
    return _OF_ALL * (plan_alone(model, images if clean is None else clean, seed).seconds or 0.0)


def plan_alone(model: Classifier, clean: ImageSet, seed: int) -> Plan:
    """A plan of an audit of a model without its training set."""
    check_several(clean)
    return plan_inversion(model, clean, DEFAULT_METHODS, settings={}, seed=seed)


def plan_audit(
    images: ImageSet,
    model: Classifier | None,
    *,
    clean: ImageSet | None = None,
    net: Named | None = None,
    power: bool = False,
    device: str = "auto",
    seed: int = 0,
) -> Plan:
    """A plan of `audit` with these arguments, a line per stage; nothing of it is kept."""
    trainer = make_trainer(images, net, device if model is None else str(model.device))
    trainer = suited(images, trainer, seed, Kept()).trainer
    suspect = model
    if suspect is None:
        once = replace(trainer, settings=trainer.settings.model_copy(update={"epochs": 1}))
        suspect = once.fit(images, np.ones(len(images), bool), seed).classifier
        lines = [repr(images), f"train: {net or DEFAULT_NET}, {trainer.longer().settings.epochs} epochs"]
    else:
        lines = list(about(suspect, images))
    costs = measure_costs(images, suspect, trainer, clean, seed)
    at_once = trainer.at_once(images)
    look, rest = first_look(at_once) * costs.training, closer_look(at_once) * costs.training
    lines += [
        "cleansers: one pass over the set for each of two versions of the images",
        "groups that carry a trigger: a few thousand passes; where one does, the next two stages wait until it is out",
        f"contradictions: {TRAININGS} trainings of {trainer.net}, {duration(look)}",
        f"inversion: {', '.join(DEFAULT_METHODS)}, {duration(costs.inversion)}",
        f"locate and experiment, where a class is looked into: {ROUNDS + 2 * REPEATS} trainings, {duration(rest)}; "
        "longer where small nets do not learn the set and copies of the model are trained on",
        "where something is found: all of it again on what is left",
    ]
    whole = look + costs.inversion + rest
    if power:
        each = look + rest + 2 * costs.training
        lines.append(f"power: two to four copies with a known trigger, {duration(each)} each")
        whole += 3 * each
    return Plan(tuple(lines), whole, at_most=False)
