"""What speaks against the classes of a set before anything is tried: one pass over every kind of evidence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from doorward.audits.closer import Named, stamps_of
from doorward.audits.evidence import INVERSION, TRANSFER
from doorward.audits.parts.contradiction import STAGE as CONTRADICTIONS
from doorward.audits.parts.contradiction import Contradictions, contradictions, learns
from doorward.audits.parts.groups import STAGE as GROUPS
from doorward.audits.parts.groups import carriers
from doorward.audits.parts.kept import Kept
from doorward.audits.parts.trainer import Rows, Trainer
from doorward.audits.plan import INVERTED, first_look
from doorward.cleansers.cleanse import cleanse
from doorward.cleansers.parts.carried import Carrier
from doorward.cleansers.parts.clusters import CLUSTERS, divided
from doorward.cleansers.results import Cleansing
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.inversion.invert import invert
from doorward.inversion.results import Inversion

CLEANSERS = "cleansers"  # stage
ALSO = 0.35  # success of a group that is looked into beside another one which is flagged
MOST_PLAIN = 2  # classes with such groups: where there are more, every class may be sent to the next one


@dataclass
class Budget:
    """Minutes that an audit may take, and what was left out to keep to them.

    Args:
        minutes: None for as long as it takes.
        training: seconds of one training, once one was measured.
        inversion: seconds of an inversion.
    """

    minutes: float | None = None
    started: float = field(default_factory=time.monotonic)
    training: float = 0.0
    inversion: float = 0.0
    left_out: list[str] = field(default_factory=list)

    def allows(self, what: str, seconds: float) -> bool:
        """Whether there is time for a stage; when not, that is noted."""
        if self.minutes is None:
            return True
        left = 60 * self.minutes - (time.monotonic() - self.started)
        if seconds <= left:
            return True
        self.left_out.append(f"{what}, which takes about {seconds:.0f} s where {max(0.0, left):.0f} s were left")
        return False


@dataclass(frozen=True, eq=False)
class Gathered:
    """What was gathered.

    Args:
        features: ``[N, t]``, the suspect model's. ``owned``: ``[N]``, where it decides as labelled.
        found: the first suspects.
        carried: groups and the triggers taken from them.
    """

    cleansing: Cleansing
    features: NDArray[np.float32]
    owned: Rows
    found: Contradictions
    inversion: Inversion | None
    carried: list[Carrier]

    @property
    def flagged(self) -> Rows:
        """Images ``[N]`` that trigger transfer flags."""
        return self.cleansing.samples.flags[TRANSFER]


def gathered(
    images: ImageSet,
    model: Classifier,
    trainer: Trainer,
    clean: ImageSet | None,
    level: float,
    number: int,
    seed: int,
    budget: Budget,
    kept: Kept,
    warnings: list[str],
    *,
    plainly: bool,
    known: Sequence[Carrier] = (),
) -> Gathered:
    """Gather evidence: cleansers, contradictions, inversion, groups.

    Args:
        plainly: where trigger transfer flags groups (`doorward.cleansers.methods.transfer`), do with them: what they
            have in common works on the suspect model, so that neither contradictions nor an inversion is needed to
            know whom to look into. They are for what is left, in the round after. Not where there are many such
            classes.
        known: groups that bear a trigger which was shown to be planted; a round does with these.
    """
    with kept.timed(CLEANSERS):
        kept.tell(CLEANSERS, "")
        cleansing = cleanse(images, model, seed=seed, level=level)
    seen = cleansing.observations
    assert seen is not None
    owned = seen.logits.argmax(axis=1) == images.labels
    carrying = plain_groups(cleansing, level)
    if known:
        carrying = np.isin(np.arange(len(images)), np.concatenate([one.rows for one in known]))
    if known or (plainly and carrying.any()):
        learned = learns(images, carrying, trainer, seed, kept)
        found = Contradictions(images.labels.copy(), carrying & owned, learned, looked=False)
        with kept.timed(GROUPS):
            carried = list(known) or carriers(images, model, seen.features, [carrying], {}, seed)
        return Gathered(cleansing, seen.features, owned, found, None, carried)
    cluster = divided(seen.features, images.labels, len(images.classes), seed)
    found = Contradictions(images.labels.copy(), np.zeros(len(images), bool))
    if budget.allows("contradictions", first_look(trainer.at_once(images)) * budget.training):
        before = kept.seconds.get(CONTRADICTIONS, 0.0)
        found = contradictions(images, cluster, owned, trainer, seed, kept)
        took = (kept.seconds.get(CONTRADICTIONS, 0.0) - before) / first_look(trainer.at_once(images))
        budget.training = max(budget.training, took)
    inversion = None
    # later rounds on a hard set do with groups alone: an inversion is most of their time
    if (number == 1 or found.learned) and budget.allows("inversion", budget.inversion):
        inversion = _inverted(images, model, found, clean, seed, kept, warnings)
    with kept.timed(GROUPS):
        kept.tell(GROUPS, "")
        marks = [*cleansing.samples.flags.values(), *(cluster == j for j in range(CLUSTERS)), found.suspects]
        triggers = stamps_of({k: inverted_triggers(inversion, k) for k in range(len(images.classes))})
        carried = carriers(images, model, seen.features, marks, triggers, seed)
    return Gathered(cleansing, seen.features, owned, found, inversion, carried)


def plain_groups(cleansing: Cleansing, level: float) -> Rows:
    """Images ``[N]`` in groups of one or two classes to begin with; none where there is nothing plain.

    Kinds of photographs carry something here and there. So where more classes have groups, those are taken that
    `transfer` accuses; and none where these are many as well, as when every class is sent to the next one.
    """
    labels, flag = cleansing.samples.label, cleansing.samples.flags[TRANSFER]
    carrying = cleansing.samples.scores[TRANSFER] >= ALSO
    if len(np.unique(labels[carrying])) > MOST_PLAIN:
        p_values = cleansing.record.methods[TRANSFER].class_p_values
        accused = [label for label, p in enumerate(p_values) if p is not None and p <= level]
        carrying &= np.isin(labels, accused)
    few = len(np.unique(labels[carrying])) <= MOST_PLAIN and bool(flag[carrying].any())
    return carrying if few else np.zeros(len(labels), bool)


def inverted_triggers(inversion: Inversion | None, label: int) -> Named:
    """A class's best trigger of every inversion."""
    if inversion is None:
        return {}
    return {name: stamps[0] for name in inversion.outcomes if (stamps := inversion.stamps(name, label))}


def _inverted(
    images: ImageSet,
    model: Classifier,
    found: Contradictions,
    clean: ImageSet | None,
    seed: int,
    kept: Kept,
    warnings: list[str],
) -> Inversion | None:
    """Triggers searched for on clean images, or on those of the set that do not contradict their label."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(~found.suspects))[:INVERTED]
    with kept.timed(INVERSION):
        kept.tell(INVERSION, "")
        try:
            return invert(model, clean if clean is not None else images.subset(np.sort(rows)), seed=seed)
        except DoorwardError as error:
            warnings.append(f"the model was not inverted: {error}")
            return None
