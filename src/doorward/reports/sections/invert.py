"""The section of an invert run."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from doorward.core.errors import DoorwardError
from doorward.core.results import ClassifierRecord, Count, ImagesRecord, Judgement, Number, Record
from doorward.core.text import count, listing, name, number, percent, plural, quoted
from doorward.reports import charts
from doorward.reports.knowledge import BLIND_SPOTS, notes, told
from doorward.reports.run_files import RunFolder, read_thumbnails
from doorward.reports.sections import Cell, Check, Section
from doorward.reports.thumbnails import Thumbnail, strips

_CLEAR = 0.01  # a p-value of the model at or below this is called evidence; above it, suspicious
_SHOWN = 24  # classes in the table

RULE = (
    "For each class a method finds a statistic that is large when the class is unusually easy to reach. Its largest "
    "values are compared with those of the other classes: the p-value is the chance that a model without a backdoor "
    "shows an outlier as clear, over all classes and methods. It rests on the statistics of clean classes being "
    "roughly normal; no fixed index decides."
)


class ClassRow(Record):
    """One class, as one method sees it."""

    label: Count
    statistic: Number = None
    p_value: Number = None
    size: Number = None
    asr: tuple[float, float, float] | None = None
    converged: bool = True
    works: bool = True
    ran_out: bool = True


class InvertMethod(Record):
    """What one inversion found."""

    p_value: Number = None
    undecided: str = ""
    meaning: str = ""
    given: tuple[str, ...] = ()
    knowledge: tuple[str, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    seconds: Number = None
    warnings: tuple[str, ...] = ()
    classes: tuple[ClassRow, ...] = Field(min_length=2)


class Target(Record):
    """A class that stands out."""

    label: Count
    p_value: float
    asr: tuple[float, float, float] | None = None
    size: Number = None
    method: str = ""


class ClassVerdict(Record):
    """A class and its p-value over all methods."""

    class_name: str = Field(alias="class")
    label: Count
    p_value: Number = None


class Stamped(Record):
    """Rows of ``thumbnails.npy``."""

    clean: list[Count] = Field(default_factory=list)
    stamped: dict[str, dict[Count, list[Count]]] = Field(default_factory=dict)


class InvertResults(Record):
    """``results`` of an invert run."""

    verdict: str
    p_value: Number = None
    level: float = Field(0.05, gt=0, lt=1)
    targets: tuple[Target, ...] = ()
    classes: tuple[ClassVerdict, ...] = Field(min_length=2)
    images: ImagesRecord | None = None
    classifier: ClassifierRecord = ClassifierRecord()
    methods: dict[str, InvertMethod] = Field(min_length=1)
    thumbnails: Stamped | None = None
    model: str = ""
    warnings: tuple[str, ...] = ()


def build(run: RunFolder, thumbnail_bytes: int) -> Section:
    """Read the run and lay out its section."""
    results = run.results(InvertResults)
    _check(results, run)
    ranked = sorted(results.classes, key=lambda c: (c.p_value is None, c.p_value))
    methods = [(m, told(r.knowledge), r, notes("invert", m)) for m, r in results.methods.items()]
    verdict = _verdict(results)
    return Section(
        run=run,
        subject=results.model or run.name,
        verdict=verdict,
        template="invert.html",
        context={
            "rule": RULE,
            "facts": _facts(results, run),
            "methods": methods,
            "blind_spots": BLIND_SPOTS["invert"],
            "rows": [_row(results, c) for c in ranked[:_SHOWN]],
            "unshown": max(0, len(ranked) - _SHOWN),
            "pictures": _pictures(results, run, thumbnail_bytes),
        },
        overview={
            "Model": Cell(name(results.model or run.name), name(results.classifier.arch)),
            "Classes": Cell(count(len(results.classes))),
            "Targets": Cell(
                listing([quoted(results.classes[t.label].class_name) for t in results.targets], 3),
                tone="flagged" if results.targets else "",
            ),
            "p-value": Cell(number(results.p_value)),
        },
        inputs={} if results.images is None else {"images": results.images.sha256},
        checks=tuple(
            Check(m, n.summary, sum((c.p_value or 1) <= results.level for c in r.classes), r.knowledge)
            for m, _, r, n in methods
        ),
        warnings=_warnings(results),
    )


def _check(results: InvertResults, run: RunFolder) -> None:
    """Refuse classes that are not those of the list."""
    classes = len(results.classes)
    wrong = [i for i, c in enumerate(results.classes) if c.label != i]
    rows = [
        r for m in results.methods.values() if [c.label for c in m.classes] != list(range(classes)) for r in m.classes
    ]
    if wrong or rows or any(t.label >= classes for t in results.targets):
        raise DoorwardError(
            f"{run.path / 'run.json'}: classes out of order; expected 0 to {classes - 1} for all methods"
        )


def _verdict(results: InvertResults) -> Judgement:
    if not results.targets:
        headline = "No class stands out" if results.p_value is not None else "No verdict"
        undecided = [f"{name(m)}: {r.undecided}." for m, r in results.methods.items() if r.undecided]
        reasons = [] if results.p_value is None else [f"p = {number(results.p_value)} over all classes and methods."]
        return Judgement(level="nothing found", headline=headline, reasons=(*reasons, *undecided))
    clear = results.p_value is not None and results.p_value <= _CLEAR
    names = [quoted(results.classes[t.label].class_name) for t in results.targets]
    reasons = [f"p = {number(results.p_value)} over all classes and methods."]
    for target, called in zip(results.targets, names, strict=True):
        if target.asr is not None:
            low, value, high = target.asr
            span = f"{percent(low)} to {percent(high)}"
            reasons.append(
                f"The trigger that {name(target.method)} found sends {percent(value)} ({span}) of held-out images "
                f"to {called}."
            )
    noun = "class" if len(names) == 1 else "classes"
    return Judgement(
        level="evidence" if clear else "suspicious",
        headline=f"A backdoor into {noun} {listing(names)}",
        reasons=tuple(reasons),
    )


def _facts(results: InvertResults, run: RunFolder) -> list[tuple[str, str, str]]:
    """Name, value and note of the figures under the verdict."""
    facts = [
        ("p-value", number(results.p_value), f"backdoor at {results.level:g} or below"),
        ("Classes", count(len(results.classes)), f"of {name(results.classifier.arch)}"),
    ]
    if results.images is not None:
        facts.append(("Clean images", count(sum(results.images.counts)), name(results.images.name)))
    accuracy = results.classifier.accuracy_on_images
    if accuracy:
        facts.append(("Classifier accuracy", percent(accuracy.value), "on these images"))
    if run.manifest.seconds is not None:
        facts.append(("Time", f"{run.manifest.seconds:,.1f} s", "for the whole run"))
    return facts


def _row(results: InvertResults, verdict: ClassVerdict) -> dict[str, Any]:
    """One class in the table: its p-value and what every method measured, drawn on the method's own scale."""
    cells = []
    for method, result in results.methods.items():
        known = [c.statistic for c in result.classes if c.statistic is not None]
        low, high = min(known, default=0.0), max(known, default=1.0)
        mine = result.classes[verdict.label]
        drawn = None if mine.statistic is None else (mine.statistic - low) / (high - low or 1.0)
        label = f"{method}, class {verdict.class_name}: {number(mine.statistic)}"
        tone = "agreed" if mine.p_value is not None and mine.p_value <= results.level else ""
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


def _pictures(results: InvertResults, run: RunFolder, budget: int) -> list[tuple[str, str, list[Thumbnail]]]:
    """Strips of images: clean first, then under the triggers of the most suspicious classes of each method."""
    if results.thumbnails is None or not results.thumbnails.clean:
        return []
    rows = {("", -1): results.thumbnails.clean}
    for method, found in results.thumbnails.stamped.items():
        rows |= {(method, label): r for label, r in list(found.items())[:4]}
    highest = max(max(r, default=0) for r in rows.values())
    pixels = read_thumbnails(run.path / "thumbnails.npy", highest)
    shown = strips(pixels, rows, budget)
    return [
        ("clean images" if label < 0 else method, "" if label < 0 else results.classes[label].class_name, images)
        for (method, label), images in shown.items()
        if label < len(results.classes)
    ]


def _warnings(results: InvertResults) -> tuple[str, ...]:
    own = [f"{name(m)}: {w}" for m, r in results.methods.items() for w in r.warnings]
    undecided = [f"{name(m)} allows no verdict: {r.undecided}" for m, r in results.methods.items() if r.undecided]
    few = []
    if len(results.classes) < 8:
        few.append(f"With {plural(len(results.classes), 'class')} a backdoor must stand out very far to be told.")
    return (*results.warnings, *few, *undecided, *own)
