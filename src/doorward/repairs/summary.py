"""From arms to one record with its verdict."""

from __future__ import annotations

from collections.abc import Sequence

from doorward.core import methods as registry
from doorward.core.images import ImageSet
from doorward.core.results import Finding, RateRecord, plain
from doorward.inversion.triggers import InvertedTriggers
from doorward.repairs.arms import Arm, Bench
from doorward.repairs.doubts import doubts
from doorward.repairs.files import arm_folder
from doorward.repairs.parts.stamping import total
from doorward.repairs.repaired import Repaired
from doorward.repairs.results import (
    ArmRecord,
    CostRecord,
    RepairedRecord,
    RepairRecord,
    StepRecord,
    TargetRecord,
    TriggersRecord,
    UsedImages,
)
from doorward.repairs.verdict import judge, nothing_to_repair


def row_of(arm: Arm) -> ArmRecord:
    """The arm as plain values."""
    method = arm.planned.method
    found = registry.get("repair", method) if method else None
    return ArmRecord(
        name=arm.planned.name,
        role=arm.planned.role,
        method=method,
        accuracy=RateRecord.of(arm.accuracy),
        cost=CostRecord.of(arm.cost) if method else None,
        asr=RateRecord.of(total(arm.success)) if arm.success else None,
        targets={target: RateRecord.of(rate) for target, rate in arm.success.items()},
        seconds=round(arm.seconds, 3),
        settings=found.configure(arm.planned.settings).model_dump(mode="json") if found else {},
        given=tuple(sorted(found.given)) if found else (),
        knowledge=tuple(sorted(found.knowledge)) if found else (),
        steps=steps_of(arm.repaired),
        details=plain(arm.repaired.details),
        warnings=arm.repaired.warnings,
    )


def steps_of(repaired: Repaired) -> tuple[StepRecord, ...]:
    """The method's own record."""
    return tuple(StepRecord(name=step.name, accuracy=RateRecord.of(step.accuracy)) for step in repaired.steps)


def summarise(
    bench: Bench,
    rows: Sequence[ArmRecord],
    source: ImageSet,
    used: InvertedTriggers | None,
    warnings: Sequence[str] = (),
) -> RepairRecord:
    """The record of a comparison.

    Args:
        rows: the classifier as given first, in the order methods, controls, oracle; alone where there is nothing to
            repair.
        source: the clean images before a share of them was taken.
        warnings: beside those that the rows give reason for.
    """
    classes = bench.classifier.classes
    alone = len(rows) == 1
    placed = [row.model_copy(update={"folder": arm_folder(n, row.name, alone)}) for n, row in enumerate(rows)]
    findings: tuple[Finding, ...] = ()
    if alone:
        judgement = nothing_to_repair(used.run if used else "")
    else:
        judgement, findings = judge(placed, classes, accused=used is not None and bool(used.accused))
    return RepairRecord(
        judgement=judgement,
        findings=findings,
        images=UsedImages(
            name=source.name,
            sha256=source.hash,
            classes=classes,
            counts=tuple((bench.fitted.counts() + bench.held.counts()).tolist()),
            shape=source.shape,
            fitted=len(bench.fitted),
            held_out=len(bench.held),
        ),
        classifier=RepairedRecord(arch=bench.classifier.arch, classes=len(classes), shape=bench.classifier.shape),
        triggers=None if used is None else _triggers(used, classes),
        arms=tuple(placed),
        warnings=(*warnings, *(() if alone else doubts(placed))),
    )


def _triggers(used: InvertedTriggers, classes: Sequence[str]) -> TriggersRecord:
    targets = tuple(
        TargetRecord(
            class_name=classes[k],
            label=k,
            method=", ".join(used.methods[k]),
            stamps=len(stamps),
            accused=k in used.accused,
        )
        for k, stamps in used.stamps.items()
    )
    return TriggersRecord(run=used.run, targets=targets)
