"""The section of a cleanse run."""

from __future__ import annotations

from collections.abc import Sequence

from doorward.cleansers.results import CleanseRecord, Cleansing
from doorward.cleansers.verdict import RULE
from doorward.core.results import Finding
from doorward.core.text import count, name, number, percent, plural, quoted, with_class_names
from doorward.reports.knowledge import BLIND_SPOTS, notes, told
from doorward.reports.run_files import RunFolder
from doorward.reports.sections import Cell, Check, Section
from doorward.reports.sections._classes import Column, cards, distribution, matrix, strips
from doorward.reports.sections._score import attacked, scored
from doorward.scoring.results import ScoreRecord


def build(run: RunFolder, thumbnail_bytes: int) -> Section:
    """Read the run and lay out its section."""
    cleansing = Cleansing.read(run.path, run.manifest.results)
    results, samples = cleansing.record, cleansing.samples
    score, found = run.score(), results.findings
    columns = [Column(m, told(r.knowledge), r, notes("cleanse", m)) for m, r in results.methods.items()]
    images = strips(run.path / "thumbnails.npy", results.thumbnails, found, thumbnail_bytes)
    return Section(
        run=run,
        subject=results.images.name,
        verdict=results.judgement,
        template="cleanse.html",
        context={
            "results": results,
            "columns": columns,
            "described": [(c.name, c.told, c.notes) for c in columns],
            "facts": _facts(results, run, found),
            "rule": RULE,
            "blind_spots": BLIND_SPOTS["cleanse"],
            "matrix": matrix(columns, results.images, found),
            "cards": cards(results, samples, found, images),
            "distributions": [distribution(c.name, samples) for c in columns],
            "score": scored(score, results.images.classes, {m: told(r.knowledge) for m, r in results.methods.items()})
            if score
            else None,
        },
        overview=_overview(results, found, score),
        inputs={"images": results.images.sha256},
        findings=found,
        checks=tuple(Check(c.name, c.notes.summary, c.result.flagged, c.result.knowledge) for c in columns),
        warnings=_warnings(results),
    )


def _facts(results: CleanseRecord, run: RunFolder, found: Sequence[Finding]) -> list[tuple[str, str, str]]:
    """Name, value and note of the figures that stand under the verdict."""
    channels, height, width = results.images.shape
    facts = [
        ("Images", count(sum(results.images.counts)), f"{width} × {height}, {'grey' if channels == 1 else 'colour'}"),
        ("Classes", count(len(results.images.classes)), f"{count(min(results.images.counts))} images or more each"),
    ]
    accuracy = results.classifier.accuracy_on_images
    if accuracy:
        note = f"of {name(results.classifier.arch)} on these images"
        facts.append(("Classifier accuracy", percent(accuracy.value), note))
    flagged = {f.label for f in found if f.weighs}
    rest = len({f.label for f in found} - flagged)
    note = f"and {rest} in the table alone" if rest else f"by {plural(len(results.methods), 'method')}"
    facts.append(("Accused classes", count(len(flagged)), note))
    if results.judgement.p_value is not None:
        facts.append(("p-value", number(results.judgement.p_value), "over all classes and methods"))
    if run.manifest.seconds is not None and run.manifest.command:  # a result saved from Python has no time of its own
        facts.append(("Time", f"{run.manifest.seconds:,.1f} s", "for the whole run"))
    return facts


def _warnings(results: CleanseRecord) -> tuple[str, ...]:
    """What the methods warn of, and why one has no p-value."""
    of_methods = (
        f"{name(m)}: {with_class_names(told, results.images.classes)}"
        for m, r in results.methods.items()
        for told in (*r.warnings, *([f"no p-value: {r.undecided}"] if r.undecided else []))
    )
    return (*results.warnings, *of_methods)


def _overview(results: CleanseRecord, found: Sequence[Finding], score: ScoreRecord | None) -> dict[str, Cell]:
    """This run as a row of the table of all runs."""
    classes = results.images.classes
    row = {"Images": Cell(name(results.images.name), plural(sum(results.images.counts), "image"))}
    row |= attacked(score, classes)
    for method, result in results.methods.items():
        own = [f for f in found if f.method == method]
        first = max(own, key=lambda f: f.flagged, default=None)
        if first is None:
            note = ""
        elif len(own) == 1:
            note = f"in class {quoted(first.class_name)}"
        else:
            note = f"in {len(own)} classes"
        notes_shown = [note, f"told: {told(result.knowledge)}" if result.knowledge else ""]
        agreed = any(f.level == "evidence" for f in own)
        row[f"{name(method)}: flagged"] = Cell(
            count(sum(f.flagged for f in own)), "; ".join(filter(None, notes_shown)), "flagged" if agreed else ""
        )
    return row
