"""A model without its training set: what its inversion says is the audit's verdict."""

from __future__ import annotations

import time

import numpy as np

from doorward.audits.records import AuditRecord, StageRecord, TargetRecord
from doorward.audits.results import Audit
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.core.results import FINDINGS, ClassifierRecord, ImagesRecord, RateRecord
from doorward.core.text import quoted
from doorward.core.triggers import Trigger, trigger_file
from doorward.inversion.invert import invert

_NO_SET = "the experiment: without the training set nothing shows whether a trigger was planted or is natural"


def audit_model(
    model: Classifier, clean: ImageSet, *, level: float, seed: int, progress: Progress | None = None
) -> Audit:
    """Invert the model; nothing is said of any training set."""
    check_several(clean)
    started = time.monotonic()
    found = invert(model, clean, level=level, seed=seed, progress=progress)
    seconds = time.monotonic() - started
    judged, targets, triggers = found.record.judgement, [], dict[int, Trigger]()
    for label in found.target_labels:
        for name in found.outcomes:
            stamps = found.stamps(name, label)
            if stamps and isinstance(stamps[0], Trigger) and label not in triggers:
                triggers[label] = stamps[0]
        p = found.record.classes[label].p_value
        told = f"{model.classes[label]!r} is easier to reach than the other classes."
        targets.append(
            TargetRecord(
                label=label,
                class_name=model.classes[label],
                level=judged.level,
                evidence={"inversion": p},
                p_value=p,
                trigger=trigger_file(label) if label in triggers else "",
                trigger_from=next(iter(found.outcomes), ""),
                sentence=told,
            )
        )
    facts = AuditRecord(
        judgement=judged.model_copy(update={"reasons": (*judged.reasons, f"Not run: {_NO_SET}.")}),
        findings=found.findings if judged.level in FINDINGS else (),
        images=ImagesRecord.of(clean),
        classifier=ClassifierRecord(arch=model.arch, accuracy_on_images=RateRecord.of(measure_accuracy(model, clean))),
        seed=seed,
        level=level,
        targets_looked_into=tuple(targets),
        stages=(StageRecord(name="inversion", seconds=round(seconds, 2)),),
        left_out=(_NO_SET,),
    )
    return Audit(facts, None, triggers, model=model, inversion=found)


def check_several(clean: ImageSet) -> None:
    """Refuse images of one class: a trigger is searched for on images of other classes.

    Raises:
        DoorwardError: all are of one class, or the model takes them for one where they are of no class of its own.
    """
    present = np.flatnonzero(clean.counts())
    if len(present) > 1:
        return
    told = f"{clean.name}: all {len(clean)} images are of class {quoted(clean.classes[int(present[0])])}"
    told += ", or the model takes them for it"
    raise DoorwardError(f"{told}; expected clean images of several of the model's classes")
