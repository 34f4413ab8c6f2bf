"""Reads the runs of a plan into plain rows, and scores them against the truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from doorward.core.results import read_record
from doorward.core.runs import Run
from doorward.core.triggers import Trigger
from doorward.inversion.results import InvertRecord
from doorward.papers.hackml.accessories import face_trigger
from doorward.papers.hackml.faces import HEIGHT, WIDTH
from doorward.papers.hackml.plan import Case, Plan
from doorward.papers.hackml.results import EvidenceRecord, FaceRepairRecord, NetRecord, ScreensRecord
from doorward.papers.hackml.stages import shared_stages, stages
from doorward.papers.hackml.work import found_triggers
from doorward.papers.rows import Row, in_tables, rate_row

_OPAQUE = 0.5


@dataclass(frozen=True)
class Found:
    """Rows of the tables.

    Args:
        scans: one per net: verdict, targets, passes, seconds.
        suspects: one per net and class whose complete trigger was searched; ``true`` is 1 for the attacker's targets.
        places: one per true trigger that has a heat map: where it was found and how much of it.
        arms: one per net and repair arm.
        guards: one per guarded net.
        screens: one per net and screen.
        times: one per finished stage.
    """

    scans: list[Row] = field(default_factory=list)
    suspects: list[Row] = field(default_factory=list)
    places: list[Row] = field(default_factory=list)
    arms: list[Row] = field(default_factory=list)
    guards: list[Row] = field(default_factory=list)
    screens: list[Row] = field(default_factory=list)
    times: list[Row] = field(default_factory=list)
    nets: list[Row] = field(default_factory=list)


def collect(plan: Plan, folder: Path) -> Found:
    """Every finished run of the plan, as rows."""
    found = Found()
    for case in plan.cases:
        here = folder / case.name
        if (here / "net").exists():
            _net(case, read_record(NetRecord, here / "net"), found)
        if (here / "evidence").exists():
            _scan(case, folder, found)
        if (here / "repair").exists():
            _repair(case, read_record(FaceRepairRecord, here / "repair"), found)
        if (here / "screens").exists():
            for row in read_record(ScreensRecord, here / "screens").screens:
                kept = row.model_dump(exclude={"false", "true"}, exclude_none=True)
                found.screens.append({"net": case.name, **kept})
    for stage in [*shared_stages(plan, folder), *(s for case in plan.cases for s in stages(plan, case, folder))]:
        if stage.finished:
            found.times.append(
                {"net": stage.case, "stage": stage.name, "seconds": float(Run.read(stage.path)["seconds"])}
            )
    return found


def _net(case: Case, net: NetRecord, found: Found) -> None:
    for (trigger, target), rate in zip(case.triggers, net.asr, strict=True):
        found.nets.append({"net": case.name, "trigger": trigger, "target": target, **rate_row("asr", rate)})


def _scan(case: Case, folder: Path, found: Found) -> None:
    record = read_record(InvertRecord, folder / case.name / "invert")
    window = record.methods["window"]
    details, evidence = window.details, read_record(EvidenceRecord, folder / case.name / "evidence").targets
    p_values = {row.label: row.p_value for row in record.classes}
    order = [k for _, k in sorted((p, k) for k, p in p_values.items() if p is not None)]
    found.scans.append(
        {
            "net": case.name,
            "classes": len(p_values),
            "p_value": record.judgement.p_value,
            "verdict": in_tables(record),
            "named": ", ".join(str(t.label) for t in record.targets),
            "targets": ", ".join(map(str, case.targets)),
            "passes": sum(details["passes"].values()),
            "exhaustive": details["passes_of_every_class_and_position"],
            "seconds": window.seconds,
        }
    )
    for row in evidence:
        heat = details["heat_maps"][str(row.label)]
        found.suspects.append(
            {
                "net": case.name,
                "label": row.label,
                "true": int(row.label in case.targets),
                "rank": 1 + details["suspects"].index(row.label),
                "p_value": p_values[row.label],
                "p_rank": 1 + order.index(row.label) if row.label in order else 0,
                "size": row.size,
                "likeness": row.likeness,
                "peak": "{}, {}".format(*heat["peak"]),
                "reading": row.reading,
                **rate_row("asr", row.strength),
                **rate_row("transfer", row.transfer),
            }
        )
    triggers = found_triggers(folder, case)
    for name, target in case.triggers:
        if target in triggers:
            place = _place(name, details["heat_maps"][str(target)]["centre"], triggers[target])
            found.places.append({"net": case.name, "trigger": name, "target": target, **place})


def true_mask(name: str) -> NDArray[np.bool_]:
    """Pixels ``[55, 47]`` that a face trigger covers."""
    trigger, mask = face_trigger(name), np.zeros((HEIGHT, WIDTH), bool)
    (top, left), (h, w) = (trigger.placement.top, trigger.placement.left), trigger.size
    mask[top : top + h, left : left + w] = trigger.alpha[0].numpy() > _OPAQUE
    return mask


def _place(name: str, centre: list[float], trigger: Trigger) -> Row:
    mask = true_mask(name)
    opaque = trigger.alpha[0].numpy() > _OPAQUE
    rows, columns = np.nonzero(mask)
    middle = float(rows.mean()), float(columns.mean())
    return {
        "row": centre[0],
        "column": centre[1],
        "true_row": middle[0],
        "true_column": middle[1],
        "distance": float(np.hypot(centre[0] - middle[0], centre[1] - middle[1])),
        "pixels": int(opaque.sum()),
        "true_pixels": int(mask.sum()),
        "overlap": float((opaque & mask).sum() / max(1, (opaque | mask).sum())),
    }


def _repair(case: Case, record: FaceRepairRecord, found: Found) -> None:
    for arm in record.arms:
        worst = max(arm.each, key=lambda rate: rate.rate().value) if arm.each else None
        row = {"net": case.name, "arm": arm.name, "role": arm.role, **rate_row("accuracy", arm.clean_accuracy)}
        found.arms.append({**row, **rate_row("asr", arm.asr), **rate_row("worst", worst), "seconds": arm.seconds})
    if record.guard:
        row = {"net": case.name}
        for name in ("clean_accuracy_before", "clean_accuracy", "clean_refused", "stamped_refused"):
            row |= rate_row(name, record.guard.get(name))
        found.guards.append(row)
