"""The section of an invert run."""

from __future__ import annotations

from typing import Any

from doorward.core.text import count, listing, name, number, percent, quoted
from doorward.inversion.results import ClassVerdict, Inversion, InvertRecord
from doorward.inversion.verdict import RULE, few_classes
from doorward.reports import charts
from doorward.reports.knowledge import BLIND_SPOTS, notes, told
from doorward.reports.run_files import RunFolder, read_thumbnails
from doorward.reports.sections import Cell, Check, Section
from doorward.reports.thumbnails import Thumbnail, strips

_SHOWN = 24  # classes in the table


def build(run: RunFolder, thumbnail_bytes: int) -> Section:
    """Read the run and lay out its section."""
    results = Inversion.read(run.path, run.manifest.results).record
    ranked = sorted(results.classes, key=lambda c: (c.p_value is None, c.p_value))
    methods = [(m, told(r.knowledge), r, notes("invert", m)) for m, r in results.methods.items()]
    return Section(
        run=run,
        subject=results.model or run.name,
        verdict=results.judgement,
        template="invert.html",
        context={
            "rule": RULE,
            "facts": _facts(results, run),
            "methods": methods,
            "described": [(m, t, n) for m, t, _, n in methods],
            "blind_spots": BLIND_SPOTS["invert"],
            "rows": [_row(results, c) for c in ranked[:_SHOWN]],
            "unshown": max(0, len(ranked) - _SHOWN),
            "pictures": _pictures(results, run, thumbnail_bytes),
        },
        overview={
            "Model": Cell(name(results.model or run.name), name(results.classifier.arch)),
            "Classes": Cell(count(len(results.classes))),
            "Targets": Cell(
                listing([quoted(t.class_name) for t in results.targets], 3),
                tone="flagged" if results.targets else "",
            ),
            "p-value": Cell(number(results.judgement.p_value)),
        },
        inputs={} if results.images is None else {"images": results.images.sha256},
        findings=results.findings,
        checks=tuple(Check(m, n.summary, sum(c.stands_out for c in r.classes), r.knowledge) for m, _, r, n in methods),
        warnings=_warnings(results),
    )


def _facts(results: InvertRecord, run: RunFolder) -> list[tuple[str, str, str]]:
    """Name, value and note of the figures under the verdict."""
    facts = [
        ("p-value", number(results.judgement.p_value), f"backdoor at {results.level:g} or below"),
        ("Classes", count(len(results.classes)), f"of {name(results.classifier.arch)}"),
    ]
    if results.images is not None:
        facts.append(("Clean images", count(sum(results.images.counts)), name(results.images.name)))
    accuracy = results.classifier.accuracy_on_images
    if accuracy:
        facts.append(("Classifier accuracy", percent(accuracy.value), "on these images"))
    if run.manifest.seconds is not None and run.manifest.command:  # a result saved from Python has no time of its own
        facts.append(("Time", f"{run.manifest.seconds:,.1f} s", "for the whole run"))
    return facts


def _row(results: InvertRecord, verdict: ClassVerdict) -> dict[str, Any]:
    """One class in the table: its p-value and what every method measured, drawn on the method's own scale."""
    cells = []
    for method, result in results.methods.items():
        known = [c.statistic for c in result.classes if c.statistic is not None]
        low, high = min(known, default=0.0), max(known, default=1.0)
        mine = result.classes[verdict.label]
        drawn = None if mine.statistic is None else (mine.statistic - low) / (high - low or 1.0)
        label = f"{method}, class {verdict.class_name}: {number(mine.statistic)}"
        tone = "agreed" if mine.stands_out else ""
        cells.append(
            {
                "bar": charts.bullet(drawn, None, 1.0, tone, label),
                "statistic": mine.statistic,
                "size": mine.size,
                "asr": mine.asr,
                "state": "" if mine.converged else "not converged" if mine.ran_out else "not followed to the end",
            }
        )
    return {"name": verdict.class_name, "p_value": verdict.p_value, "cells": cells}


def _pictures(results: InvertRecord, run: RunFolder, budget: int) -> list[tuple[str, str, list[Thumbnail]]]:
    """Strips of images: clean first, then under the triggers of the most suspicious classes of each method."""
    if results.thumbnails is None or not results.thumbnails.clean:
        return []
    rows = {("", -1): list(results.thumbnails.clean)}
    for method, found in results.thumbnails.stamped.items():
        rows |= {(method, label): list(r) for label, r in list(found.items())[:4]}
    highest = max(max(r, default=0) for r in rows.values())
    pixels = read_thumbnails(run.path / "thumbnails.npy", highest)
    shown = strips(pixels, rows, budget)
    return [
        ("clean images" if label < 0 else method, "" if label < 0 else results.classes[label].class_name, images)
        for (method, label), images in shown.items()
        if label < len(results.classes)
    ]


def _warnings(results: InvertRecord) -> tuple[str, ...]:
    own = [f"{name(m)}: {w}" for m, r in results.methods.items() for w in r.warnings]
    undecided = [f"{name(m)} allows no verdict: {r.undecided}" for m, r in results.methods.items() if r.undecided]
    return (*results.warnings, *few_classes(len(results.classes)), *undecided, *own)
