"""Reads the runs of a plan into plain rows; computes no result of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from doorward.core.results import read_record
from doorward.core.runs import Run
from doorward.inversion.results import InvertRecord
from doorward.papers.mesa.arms import BEFORE, arms, inversions
from doorward.papers.mesa.plan import Case, Plan
from doorward.papers.mesa.results import ArmScore, AttackedRecord, TruthScore
from doorward.papers.mesa.stages import shared_stages, stages
from doorward.papers.rows import Row, in_tables, rate_row


@dataclass(frozen=True)
class Found:
    """Rows of the tables.

    Args:
        models: one per case, arm and rank: success of the attacker's trigger and clean accuracy.
        inversions: one per case, search, class and generator or run: how well the defence's own triggers succeed.
        verdicts: one per case that was searched without being told the target.
        times: one per finished stage.
    """

    models: list[Row] = field(default_factory=list)
    inversions: list[Row] = field(default_factory=list)
    verdicts: list[Row] = field(default_factory=list)
    times: list[Row] = field(default_factory=list)


def collect(plan: Plan, folder: Path) -> Found:
    """Every finished run of the plan, as rows."""
    found = Found()
    for case in plan.cases:
        here, about = folder / case.name, {"case": case.name, **case.about()}
        if (here / "attack").exists():
            attacked = read_record(AttackedRecord, here / "attack")
            for name, scored in (("clean", attacked.clean), (BEFORE, attacked.before)):
                found.models.append({**about, "arm": name, "rank": 0, "told": "", **_rates(scored)})
        for arm in arms(plan, case):
            if (here / arm.folder).exists():
                score = read_record(ArmScore, here / arm.folder)
                told = ", ".join(score.told)
                found.models.append({**about, "arm": arm.name, "rank": arm.rank or 0, "told": told, **_rates(score)})
        _collect_inversions(plan, case, here, about, found)
    every = [*shared_stages(plan, folder), *(s for case in plan.cases for s in stages(plan, case, folder))]
    for stage in every:
        if stage.finished:
            seconds = float(Run.read(stage.path)["seconds"])
            found.times.append({"case": stage.case, "stage": stage.name, "kind": stage.kind, "seconds": seconds})
    return found


def _rates(scored: TruthScore) -> Row:
    return rate_row("asr", scored.asr) | rate_row("accuracy", scored.accuracy)


def _collect_inversions(plan: Plan, case: Case, here: Path, about: Row, found: Found) -> None:
    for inversion in inversions(plan, case):
        path = here / f"invert-{inversion.name}"
        if not path.exists():
            continue
        record = read_record(InvertRecord, path, "invert")
        details = record.methods[inversion.method].details
        if inversion.method == "mask":
            first, p_value = record.targets[0].label if record.targets else -1, record.judgement.p_value
            found.verdicts.append({**about, "verdict": in_tables(record), "named": first, "p_value": p_value})
            continue
        (success,) = details["success"]  # one class was searched
        entropy = details["entropy"][0] if "entropy" in details else [None] * len(success)
        for number, (rate, nats) in enumerate(zip(success, entropy, strict=True)):
            found.inversions.append(
                {**about, "inversion": inversion.name, "lane": number, "success": rate, "entropy": nats}
            )
