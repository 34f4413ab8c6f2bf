"""The section of a repair run."""

from __future__ import annotations

from typing import Any

from doorward.core.text import count, listing, name, number, percent, quoted
from doorward.repairs.results import Repair, RepairRecord
from doorward.repairs.verdict import NOTHING_RULE, RULE
from doorward.reports import charts
from doorward.reports.knowledge import BLIND_SPOTS, notes, told
from doorward.reports.run_files import RunFolder
from doorward.reports.sections import Cell, Check, Section
from doorward.reports.sections._rates import FULL, accuracy_domain, drawn
from doorward.scoring.results import ScoreRecord

_ROLES = {
    "given": "before any repair",
    "repair": "",
    "control": "control arm: no triggers",
    "oracle": "oracle: told the true trigger",
}


def build(run: RunFolder, thumbnail_bytes: int) -> Section:
    """Read the run and lay out its section; it has no thumbnails."""
    results = Repair.read(run.path, run.manifest.results).record
    subject = results.model or str(run.manifest.settings.get("model", "")) or run.name
    described = [(m, notes("repair", m)) for m in dict.fromkeys(arm.method for arm in results.arms if arm.method)]
    shown = [s for s in results.first.steps if s.accuracy.value is not None]
    knowledge = {arm.method: arm.knowledge for arm in results.arms}
    found = [f.method for f in results.findings]
    return Section(
        run=run,
        subject=subject,
        verdict=results.judgement,
        template="repair.html",
        context={
            "rule": RULE if len(results.arms) > 1 else NOTHING_RULE,
            "facts": _facts(results, run),
            "arms": _arms(results),
            "proofs": _proofs(results),
            "proof": results.first.proof or results.given.proof,
            "axis": charts.interval_axis(FULL),
            "accuracy_axis": charts.interval_axis(accuracy_domain([a.accuracy for a in results.arms])),
            "steps": [(s.name, drawn(s.accuracy, FULL, "good", "clean accuracy")) for s in shown],
            "triggers": results.triggers,
            "described": [(m, "", n) for m, n in described],
            "blind_spots": BLIND_SPOTS["repair" if described else "invert"],  # what the verdict rests on
            "score": _scored(run.score()),
        },
        overview=_overview(results, subject),
        inputs={"clean images": results.images.sha256},
        findings=results.findings,
        checks=tuple(Check(m, n.summary, found.count(m), knowledge[m]) for m, n in described),
        warnings=results.warnings,
    )


def _facts(results: RepairRecord, run: RunFolder) -> list[tuple[str, str, str]]:
    """Name, value and note of the figures under the verdict."""
    facts, given, first = _proof_facts(results), results.given, results.first
    before = f"{percent(given.accuracy.value)} before" if first is not given else "of the model as given"
    facts.append(("Clean accuracy", percent(first.accuracy.value), before))
    held = f"{count(results.images.held_out)} of them held out to measure on"
    facts.append(("Clean images", count(sum(results.images.counts)), held))
    if results.triggers and results.triggers.targets:
        targets = listing([quoted(t.class_name) for t in results.triggers.targets], 3)
        note = f"from {name(results.triggers.run)}" if results.triggers.run else ""
        facts.append(("Triggers into", targets, note))
    if given.asr and first.asr:
        note = f"{percent(given.asr.value)} before; the repair knew these triggers"
        facts.append(("Trained-against triggers succeed", percent(first.asr.value), note))
    if run.manifest.seconds is not None and run.manifest.command:  # a result saved from Python has no time of its own
        facts.append(("Time", f"{run.manifest.seconds:,.1f} s", "for the whole run"))
    return facts


def _proof_facts(results: RepairRecord) -> list[tuple[str, str, str]]:
    """What the verdict rests on, first."""
    given, proof = results.given.proof, results.first.proof
    if proof is None:
        return []
    old_p = {} if given is None else given.p_values
    old = {} if given is None else {v.label: v for v in given.variations}
    facts = []
    for label, p in proof.p_values.items():
        note = f"{number(old_p.get(label))} before; is {quoted(_class(results, label))} easier to reach than others?"
        facts.append(("p in a fresh inversion", number(p), note))
    for v in proof.variations:
        before = f"{percent(old[v.label].success.value)} before" if v.label in old else "not measured before"
        facts.append(
            ("Variations succeed", percent(v.success.value), f"{before}; naturally up to {percent(v.natural)}")
        )
    return facts


def _class(results: RepairRecord, label: int) -> str:
    classes = results.images.classes
    return classes[label] if label < len(classes) else str(label)


def _proofs(results: RepairRecord) -> list[dict[str, Any]]:
    """The rows of the proof: per arm, target and method."""
    before = {(s.method, s.label): s for s in results.given.proof.standings} if results.given.proof else {}
    rows = []
    for arm in results.arms:
        if arm.proof is None:
            continue
        varied = {v.label: v for v in arm.proof.variations}
        for s in arm.proof.standings:
            old, v = before.get((s.method, s.label)), varied.get(s.label)
            rows.append(
                {
                    "arm": arm.name,
                    "target": _class(results, s.label),
                    "method": s.method,
                    "before": None if old is None else old.size,
                    "size": s.size,
                    "others": s.others,
                    "smallest": s.smallest,
                    "p": s.p_value,
                    "p_all": arm.proof.p_values.get(s.label),
                    "undecided": s.undecided,
                    "varied": None if v is None else str(v.success.rate()),
                    "natural": None if v is None else v.natural,
                }
            )
    return rows


def _arms(results: RepairRecord) -> list[dict[str, Any]]:
    """The rows of the table, their intervals drawn on common axes."""
    domain = accuracy_domain([arm.accuracy for arm in results.arms])
    several = results.triggers is not None and len(results.triggers.targets) > 1
    return [
        {
            "name": arm.name,
            "note": _ROLES[arm.role],
            "told": told(arm.knowledge),
            "asr": drawn(arm.asr, FULL, "bad", f"{arm.name}, success of the found triggers"),
            "accuracy": drawn(arm.accuracy, domain, "good", f"{arm.name}, clean accuracy"),
            "targets": [
                (_class(results, label), rate.value) for label, rate in (arm.targets.items() if several else ())
            ],
            "given": arm.given,
            "settings": arm.settings,
            "seconds": arm.seconds if arm.role != "given" else None,
        }
        for arm in results.arms
    ]


def _overview(results: RepairRecord, subject: str) -> dict[str, Cell]:
    given, first = results.given, results.first
    varied = [percent(arm.proof.varied if arm.proof else None) for arm in (given, first)]
    before, after = (percent(arm.asr.value if arm.asr else None) for arm in (given, first))
    return {
        "Model": Cell(name(subject)),
        "Method": Cell(name(first.name) if first is not given else "none"),
        "Variations succeed": Cell(varied[1], f"{varied[0]} before"),
        "Clean accuracy": Cell(percent(first.accuracy.value), f"{percent(given.accuracy.value)} before"),
        "Trained-against triggers succeed": Cell(after, f"{before} before"),
    }


def _scored(score: ScoreRecord | None) -> dict[str, Any] | None:
    """True attack success and clean test accuracy of every arm, when they were computed."""
    if score is None:
        return None
    domain = accuracy_domain([m.clean_accuracy for m in score.models])
    return {
        "attack": score.attack,
        "models": [
            {
                "name": m.name,
                "asr": drawn(m.asr, FULL, "bad", f"{m.name}, attack success rate"),
                "accuracy": drawn(m.clean_accuracy, domain, "good", f"{m.name}, clean accuracy"),
            }
            for m in score.models
        ],
        "axis": charts.interval_axis(FULL),
        "accuracy_axis": charts.interval_axis(domain),
    }
