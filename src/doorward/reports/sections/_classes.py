"""The parts of a cleanse section that go class by class: matrix, cards with images, histograms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from doorward.cleansers.results import CleanseRecord, GroupRecord, MethodRecord, ThumbnailRows
from doorward.cleansers.samples import Samples
from doorward.core.results import Finding, ImagesRecord
from doorward.core.text import count, listing, name, number, plural, quoted
from doorward.reports import charts, thumbnails
from doorward.reports.knowledge import MethodNotes, told
from doorward.reports.run_files import read_thumbnails

_MOST_ROWS = 40  # classes in the matrix
_MOST_CARDS = 10  # flagged classes shown with images and histograms
Strips = dict[tuple[int, str], list[thumbnails.Thumbnail]]
_MOST_NAMES = 200  # files listed of a method in a class
TYPICAL = ""  # in place of a method's name in `Strips`
BEFORE, AFTER = "before", "after"  # other images without and with what the suspects have in common


@dataclass(frozen=True)
class Column:
    """A method as a column of tables."""

    name: str
    told: str
    result: MethodRecord
    notes: MethodNotes

    @property
    def given(self) -> str:
        """What the method is given, as words."""
        return listing([g.replace("_", " ") for g in self.result.given], 20)

    @property
    def thresholds(self) -> str:
        """The threshold, or the range of thresholds, that its groups were held against."""
        values = [g.threshold for g in self.result.groups if g.threshold is not None]
        if not values:
            return "no fixed threshold"
        low, high = number(min(values)), number(max(values))
        return f"threshold {low}" if low == high else f"thresholds {low} to {high}"


def matrix(columns: Sequence[Column], images: ImagesRecord, found: Sequence[Finding]) -> dict[str, Any]:
    """Class by method: how far each class's leading group goes, against its threshold.

    Of many classes, the flagged ones come first and 40 are shown.
    """
    by_place = {(f.method, f.label): f for f in found if f.label is not None}
    labels = list(range(len(images.classes)))
    if len(labels) > _MOST_ROWS:
        weight = Counter[int]()
        for finding in found:
            weight[finding.label or 0] += finding.flagged * (1000 if finding.weighs else 1)
        labels = sorted(labels, key=lambda label: -weight[label])[:_MOST_ROWS]
    bars = [_bars(c, images, by_place) for c in columns]
    rows = [
        {
            "name": images.classes[label],
            "images": images.counts[label],
            "cells": [
                {
                    "bar": bar[label],
                    "tone": _tone(by_place.get((c.name, label))),
                    "finding": by_place.get((c.name, label)),
                }
                for c, bar in zip(columns, bars, strict=True)
            ],
        }
        for label in labels
    ]
    past = any(
        g.threshold is not None and g.statistic is not None and g.statistic > g.threshold
        for c in columns
        for g in c.result.groups
        if (c.name, g.label) not in by_place
    )
    return {"rows": rows, "unshown": len(images.classes) - len(rows), "past_the_mark": past}


def _tone(finding: Finding | None) -> str:
    return "" if finding is None else "flagged" if finding.weighs else "told"  # pale: in the table alone


def _bars(column: Column, images: ImagesRecord, found: Mapping[tuple[str, int], Finding]) -> list[Markup]:
    """One bar per class, all on the scale of this method."""
    leading: list[tuple[float | None, float | None]] = []
    for label in range(len(images.classes)):
        group = _leading(column.result.groups, label)
        if group is not None:
            leading.append((group.statistic, group.threshold))
        else:
            scores = column.result.class_scores
            leading.append((scores[label] if label < len(scores) else None, None))
    scale = 1.04 * max((v for pair in leading for v in pair if v is not None), default=0.0)
    return [
        charts.bullet(
            value, threshold, scale, _tone(found.get((column.name, label))),
            f"class {name(images.classes[label])}, {name(column.name)}: statistic {number(value)}"
            + (f", threshold {number(threshold)}" if threshold is not None else ""),
        )
        for label, (value, threshold) in enumerate(leading)
    ]  # fmt: skip


def _leading(groups: Sequence[GroupRecord], label: int) -> GroupRecord | None:
    """The group that decides a class: the one with most flags, then with the largest statistic."""
    own = [g for g in groups if g.label == label and g.statistic is not None]
    return max(own, key=lambda g: (g.flagged, g.statistic), default=None)


def strips(path: Path, rows: ThumbnailRows, found: Sequence[Finding], budget: int) -> Strips:
    """The images of the flagged classes: typical ones, and each method's worst."""
    wanted: dict[tuple[int, str], list[int]] = {}
    for label in _weighing(found)[:_MOST_CARDS]:
        wanted[label, TYPICAL] = rows.typical.get(label, [])
        wanted[label, BEFORE], wanted[label, AFTER] = rows.before.get(label, []), rows.after.get(label, [])
        for finding in found:
            if finding.label == label:
                wanted[label, finding.method] = rows.suspects.get(finding.method, {}).get(label, [])
    highest = max((row for strip in wanted.values() for row in strip), default=-1)
    if highest < 0:
        return {}
    return thumbnails.strips(read_thumbnails(path, highest), wanted, budget)


def cards(results: CleanseRecord, samples: Samples, found: Sequence[Finding], images: Strips) -> dict[str, Any]:
    """The flagged classes, best supported first, each with its images, groups and histograms."""
    labels = _weighing(found)
    shown = [_card(results, samples, [f for f in found if f.label == label], images) for label in labels[:_MOST_CARDS]]
    return {
        "shown": shown,
        "unshown": [results.images.classes[label] for label in labels[_MOST_CARDS:]],
        "table_only": list(dict.fromkeys(f.class_name for f in found if f.label not in labels)),
    }


def _weighing(found: Sequence[Finding]) -> list[int]:
    """Classes with a finding that says anything, best supported first."""
    return list(dict.fromkeys(f.label for f in found if f.weighs and f.label is not None))


def _card(results: CleanseRecord, samples: Samples, own: Sequence[Finding], images: Strips) -> dict[str, Any]:
    label, class_name = own[0].label or 0, own[0].class_name
    members = samples.label == label
    histograms = []
    for finding in own:
        scores = samples.scores[finding.method]
        words = (
            f"Scores of {name(finding.method)} within class {quoted(class_name)}: {count(finding.flagged)} of "
            f"{count(finding.size)} images flagged"
        )
        edges = charts.bin_edges(scores)  # the axis of the whole set, so that classes can be compared
        chart = charts.histogram(scores[members], samples.flags[finding.method][members], words, edges)
        histograms.append({"method": finding.method, "chart": chart})
    return {
        "name": class_name,
        "size": own[0].size,
        "level": "evidence" if any(f.level == "evidence" for f in own) else "suspicious",
        "findings": [
            {"finding": f, "told": told(results.methods[f.method].knowledge), "groups": _flagged(results, f)}
            for f in own
        ],
        "typical": images.get((label, TYPICAL), []),
        "at_work": [images.get((label, kind), []) for kind in (BEFORE, AFTER)],
        "suspects": [(f, images[label, f.method]) for f in own if (label, f.method) in images],
        "names": [{"method": f.method, "count": len(f.ids), "shown": list(f.ids[:_MOST_NAMES])} for f in own if f.ids],
        "histograms": histograms,
        "groups": any(_flagged(results, f) for f in own),
    }


def _flagged(results: CleanseRecord, finding: Finding) -> list[GroupRecord]:
    """The groups of a class in which a method flags something."""
    groups = results.methods[finding.method].groups
    return [g for g in groups if g.label == finding.label and g.flagged]


def distribution(method: str, samples: Samples) -> dict[str, Any]:
    """All scores of a method as a histogram."""
    scores, flags = samples.scores[method], samples.flags[method]
    missing = int((~np.isfinite(scores)).sum())
    words = f"Scores of {name(method)}: {count(len(scores))} images, {count(int(flags.sum()))} flagged"
    return {
        "method": method,
        "chart": charts.histogram(scores, flags, words),
        "flagged": int(flags.sum()),
        "images": len(scores),
        "missing": plural(missing, "image") if missing else "",
    }
