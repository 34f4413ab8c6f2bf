"""The section of a screen run."""

from __future__ import annotations

from doorward.core.text import count, name, number, percent
from doorward.reports.knowledge import BLIND_SPOTS, notes, told
from doorward.reports.run_files import RunFolder
from doorward.reports.sections import Cell, Check, Section
from doorward.screens.results import Screening, ScreenRecord
from doorward.screens.verdict import RULE

_MOST_ROWS = 24  # decisions in the table


def build(run: RunFolder, thumbnail_bytes: int) -> Section:
    """Read the run and lay out its section; it has no thumbnails."""
    results = Screening.read(run.path, run.manifest.results).record
    subject = results.images.name if results.images else results.source or run.name
    described = notes("screen", results.method)
    classes = results.classifier.classes if results.classifier else ()
    decided = [(c, n) for c, n in zip(classes, results.flagged_by_decision, strict=True) if n]
    return Section(
        run=run,
        subject=subject,
        verdict=results.judgement,
        template="screen.html",
        context={
            "rule": RULE,
            "facts": _facts(results, run),
            "decided": sorted(decided, key=lambda row: -row[1])[:_MOST_ROWS],
            "described": [(results.method, told(results.knowledge), described)],
            "given": results.given,
            "settings": results.settings,
            "blind_spots": BLIND_SPOTS["screen"],
        },
        overview={
            "Images": Cell(name(subject), count(results.screened)),
            "Method": Cell(name(results.method)),
            "Flagged": Cell(count(results.flagged), tone="flagged" if results.findings else ""),
            "p-value": Cell(number(results.judgement.p_value)),
        },
        inputs={"images": results.images.sha256} if results.images else {},
        findings=results.findings,
        checks=(Check(results.method, described.summary, len(results.findings), results.knowledge),),
        warnings=results.warnings,
    )


def _facts(results: ScreenRecord, run: RunFolder) -> list[tuple[str, str, str]]:
    """Name, value and note of the figures under the verdict."""
    facts = [
        ("Flagged", count(results.flagged), f"of {count(results.screened)} images"),
        ("Of clean images", percent(results.false_rejection), "are flagged"),
        ("p-value", number(results.judgement.p_value), "of so many flags"),
    ]
    if results.clean is not None:
        facts.append(("Clean images", count(results.clean.images), name(results.clean.name)))
    if run.manifest.seconds is not None and run.manifest.command:  # a result saved from Python has no time of its own
        facts.append(("Time", f"{run.manifest.seconds:,.1f} s", "for the whole run"))
    return facts
