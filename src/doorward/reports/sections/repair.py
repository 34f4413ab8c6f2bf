"""The section of a repair run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from doorward.core.results import Count, ImagesRecord, Judgement, Number, RateRecord, Record
from doorward.core.text import count, extent, listing, name, percent, plural, quoted
from doorward.reports import charts
from doorward.reports.knowledge import BLIND_SPOTS, notes, told
from doorward.reports.run_files import RunFolder, Score
from doorward.reports.sections import Cell, Check, Section
from doorward.reports.sections._rates import FULL, accuracy_domain, drawn

_STILL = 0.1  # success above which, beyond chance, the triggers still work
_ROLES = {
    "given": "before any repair",
    "repair": "",
    "control": "control arm: no triggers",
    "oracle": "oracle: told the true trigger",
}

RULE = (
    "Every arm starts from the same classifier and is measured on the same clean images, which none of them saw. What "
    "a repair does beyond the control arms is due to its triggers; what fine-tuning or fresh batch-norm statistics do "
    "as well is not."
)


class StepRow(Record):
    """One step of a method's own record."""

    name: str
    accuracy: RateRecord


class ArmRow(Record):
    """One arm of the comparison."""

    name: str
    role: Literal["given", "repair", "control", "oracle"]
    method: str = ""
    accuracy: RateRecord
    asr: RateRecord | None = None
    targets: dict[Count, RateRecord] = Field(default_factory=dict)
    seconds: Number = None
    settings: dict[str, Any] = Field(default_factory=dict)
    given: tuple[str, ...] = ()
    knowledge: tuple[str, ...] = ()


class TargetRow(Record):
    """A class whose inverted triggers were used."""

    class_name: str = Field(alias="class")
    label: Count
    method: str
    stamps: Count


class UsedTriggers(Record):
    """Where the triggers come from."""

    run: str = ""
    targets: tuple[TargetRow, ...] = ()


class UsedImages(ImagesRecord):
    """The clean images and how they were divided."""

    fitted: Count
    held_out: Count


class RepairResults(Record):
    """``results`` of a repair run; a run of one method alone has steps and no arms."""

    model: str = ""
    images: UsedImages | None = None
    triggers: UsedTriggers | None = None
    arms: tuple[ArmRow, ...] = ()
    steps: tuple[StepRow, ...] = ()
    clean_images: Count = 0
    knowledge: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def build(run: RunFolder, thumbnail_bytes: int) -> Section:
    """Read the run and lay out its section; it has no thumbnails."""
    results = run.results(RepairResults)
    settings = run.manifest.settings
    subject = results.model or str(settings.get("model", "")) or run.name
    methods = list(dict.fromkeys(arm.method for arm in results.arms if arm.method)) or [str(settings.get("method", ""))]
    described = [(m, notes("repair", m)) for m in methods if m]
    others = sorted(results.arms[1:], key=lambda arm: arm.role != "repair")
    first = others[0] if others else None  # a control stands for itself where it was the only choice
    given = next((arm for arm in results.arms if arm.role == "given"), None)
    shown = [s for s in results.steps if s.accuracy.value is not None]
    return Section(
        run=run,
        subject=subject,
        verdict=_verdict(results, given, first, methods[0]),
        template="repair.html",
        context={
            "rule": RULE if results.arms else "",
            "facts": _facts(results, run, given, first),
            "arms": _arms(results),
            "axis": charts.interval_axis(FULL),
            "accuracy_axis": charts.interval_axis(accuracy_domain([a.accuracy for a in results.arms])),
            "steps": [(s.name, drawn(s.accuracy, FULL, "good", "clean accuracy")) for s in shown],
            "triggers": results.triggers,
            "described": described,
            "blind_spots": BLIND_SPOTS["repair"],
            "score": _scored(run.score()),
        },
        overview=_overview(results, given, first, subject, methods[0]),
        inputs={} if results.images is None else {"clean images": results.images.sha256},
        checks=tuple(Check(m, n.summary, 0, results.knowledge) for m, n in described),
        warnings=results.warnings,
    )


def _verdict(results: RepairResults, given: ArmRow | None, first: ArmRow | None, method: str) -> Judgement:
    """Whether the triggers still work; without triggers, that nothing tells."""
    if given is None or first is None or given.asr is None or first.asr is None:
        measured = [s for s in results.steps if s.accuracy.value is not None]
        steps = [f"{name(s.name)}: clean accuracy {percent(s.accuracy.value)}." for s in measured]
        headline = f"Repaired by {name(method)}; its effect on a backdoor was not measured"
        return Judgement(level="undecided", headline=headline, reasons=tuple(steps))
    before, after = percent(given.asr.value), percent(first.asr.value)
    still = first.asr.low > _STILL
    if still:
        headline = f"After {name(first.name)} the triggers still succeed on {after} of images; before, on {before}"
    else:
        headline = f"The triggers succeed on {before} of images before and on {after} after {name(first.name)}"
    reasons = [f"After it: {extent(first.asr.low, first.asr.high)}, on {plural(first.asr.trials, 'held-out image')}."]
    controls = [arm for arm in results.arms if arm.role == "control" and arm.asr is not None]
    for arm in controls:
        reasons.append(f"Without triggers, {name(arm.name)} leaves {percent(arm.asr.value if arm.asr else None)}.")
    reasons.append(
        f"Clean accuracy: {percent(given.accuracy.value)} before, {percent(first.accuracy.value)} after "
        f"({extent(first.accuracy.low, first.accuracy.high)})."
    )
    return Judgement(level="not repaired" if still else "repaired", headline=headline, reasons=tuple(reasons))


def _facts(
    results: RepairResults, run: RunFolder, given: ArmRow | None, first: ArmRow | None
) -> list[tuple[str, str, str]]:
    """Name, value and note of the figures under the verdict."""
    facts = []
    if given and first and given.asr and first.asr:
        facts.append(("Triggers succeed", percent(first.asr.value), f"{percent(given.asr.value)} before"))
    if given and first:
        facts.append(("Clean accuracy", percent(first.accuracy.value), f"{percent(given.accuracy.value)} before"))
    if results.images is not None:
        held = f"{count(results.images.held_out)} of them held out to measure on"
        facts.append(("Clean images", count(sum(results.images.counts)), held))
    elif results.clean_images:
        facts.append(("Clean images", count(results.clean_images), ""))
    if results.triggers:
        targets = listing([quoted(t.class_name) for t in results.triggers.targets], 3)
        facts.append(("Triggers into", targets, f"from {name(results.triggers.run)}"))
    if run.manifest.seconds is not None:
        facts.append(("Time", f"{run.manifest.seconds:,.1f} s", "for the whole run"))
    return facts


def _arms(results: RepairResults) -> list[dict[str, Any]]:
    """The rows of the table, their intervals drawn on common axes."""
    domain = accuracy_domain([arm.accuracy for arm in results.arms])
    classes = results.images.classes if results.images else ()
    several = results.triggers is not None and len(results.triggers.targets) > 1
    return [
        {
            "name": arm.name,
            "note": _ROLES[arm.role],
            "told": told(arm.knowledge),
            "asr": drawn(arm.asr, FULL, "bad", f"{arm.name}, success of the inverted triggers"),
            "accuracy": drawn(arm.accuracy, domain, "good", f"{arm.name}, clean accuracy"),
            "targets": [
                (classes[label] if label < len(classes) else str(label), rate.value)
                for label, rate in (arm.targets.items() if several else ())
            ],
            "given": arm.given,
            "settings": arm.settings,
            "seconds": arm.seconds if arm.role != "given" else None,
        }
        for arm in results.arms
    ]


def _overview(
    results: RepairResults, given: ArmRow | None, first: ArmRow | None, subject: str, method: str
) -> dict[str, Cell]:
    cells = {"Model": Cell(name(subject)), "Method": Cell(name(first.name if first else method))}
    if given and first:
        before = percent(given.asr.value if given.asr else None)
        cells["Triggers succeed"] = Cell(percent(first.asr.value if first.asr else None), f"{before} before")
        cells["Clean accuracy"] = Cell(percent(first.accuracy.value), f"{percent(given.accuracy.value)} before")
    elif results.steps:
        before = percent(results.steps[0].accuracy.value)
        cells["Clean accuracy"] = Cell(percent(results.steps[-1].accuracy.value), f"{before} before")
    return cells


def _scored(score: Score | None) -> dict[str, Any] | None:
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
