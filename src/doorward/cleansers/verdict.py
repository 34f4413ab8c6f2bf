"""From flags to a verdict: which classes each method flags, where methods agree, and what that comes to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from doorward.reports.knowledge import FIXES_THE_NUMBER, told
from doorward.reports.run_files import CleanseResults, Samples
from doorward.reports.sections import Finding, Verdict
from doorward.reports.text import count, listing, name, percent, plural, quoted

# Two methods agree in a class when both flag at least so many images there ...
AGREEING_IMAGES = 5
# ... and those are at least this share of the images that either flags (Jaccard index).
AGREEING_SHARE = 0.5
LONGEST_LIST = 100  # images that a finding names; the most that SARIF viewers take

RULE = (
    f"Evidence: two methods flag at least {AGREEING_IMAGES} of the same images in a class, and at least "
    f"{percent(AGREEING_SHARE, 0)} of the images that either of them flags. Suspicious: anything else that is flagged. "
    "A method that was told how many images to flag counts only where another method agrees with it."
)


def _agreements(samples: Samples, classes: int) -> tuple[dict[tuple[str, str], NDArray[np.float64]], NDArray[np.int64]]:
    """Jaccard index per class ``[K]`` for every pair of methods (0 below 5 common images), and images per class."""
    pairs: dict[tuple[str, str], NDArray[np.float64]] = {}
    for a, b in combinations(samples.flags, 2):
        both = np.bincount(samples.label[samples.flags[a] & samples.flags[b]], minlength=classes)
        either = np.bincount(samples.label[samples.flags[a] | samples.flags[b]], minlength=classes)
        share = np.where(both >= AGREEING_IMAGES, both / np.maximum(either, 1), 0.0)
        pairs[a, b] = pairs[b, a] = share
    return pairs, np.bincount(samples.label, minlength=classes)


def findings(results: CleanseResults, samples: Samples) -> tuple[Finding, ...]:
    """One finding per method and class with flagged images; the best supported first."""
    classes = results.images.classes
    pairs, sizes = _agreements(samples, len(classes))
    counted = {m: not FIXES_THE_NUMBER & set(r.knowledge) for m, r in results.methods.items()}
    found = []
    for method, result in results.methods.items():
        flagged = np.bincount(samples.label[samples.flags[method]], minlength=len(classes))
        for label in np.flatnonzero(flagged):
            # A pair of methods that were both told the number shows nothing: both flag outliers, poisoned or not.
            shares = [s[label] for (a, b), s in pairs.items() if a == method and (counted[a] or counted[b])]
            agreement = float(max(shares, default=0.0))
            groups = [g.model_dump() for g in result.groups if g.label == label and g.flagged]
            found.append(
                Finding(
                    method, int(label), classes[label], int(flagged[label]), int(sizes[label]), agreement,
                    counted[method], "evidence" if agreement >= AGREEING_SHARE else "suspicious",
                    _worst(samples, method, int(label)), tuple(groups),
                )
            )  # fmt: skip
    return tuple(sorted(found, key=lambda f: (f.level != "evidence", not f.counted, -f.agreement, -f.flagged)))


def _worst(samples: Samples, method: str, label: int) -> tuple[int, ...]:
    """Indices of the flagged images of a class, highest score first."""
    rows = np.flatnonzero(samples.flags[method] & (samples.label == label))
    scores = np.nan_to_num(samples.scores[method][rows], nan=-np.inf)
    order = rows[np.argsort(-scores, kind="stable")][:LONGEST_LIST]
    return tuple(int(i) for i in samples.index[order])


def verdict(results: CleanseResults, found: Sequence[Finding]) -> Verdict:
    """The verdict on a cleanse run, with its reasons."""
    agreed = _labels([f for f in found if f.level == "evidence"])
    single = [f for f in found if f.counted and f.level == "suspicious"]
    reasons = [_agreement_reason(found, label) for label in agreed[:4]]
    reasons += _single_reasons(single, len(results.images.classes))
    reasons += _told_reasons(results, found)
    if agreed:
        classes = listing([quoted(results.images.classes[label]) for label in agreed], 3)
        return Verdict("evidence", f"Evidence of a backdoor in class {classes}", tuple(reasons))
    if single:
        total = plural(len({f.method for f in single}), "method")
        return Verdict("suspicious", f"Suspicious: flagged by {total}, without agreement", tuple(reasons))
    return Verdict("nothing", "Nothing found by these methods", (_nothing_reason(results), *reasons))


def _labels(found: Sequence[Finding]) -> list[int]:
    return list(dict.fromkeys(f.label for f in found))


def _agreement_reason(found: Sequence[Finding], label: int) -> str:
    agreeing = [f for f in found if f.label == label and f.level == "evidence"]
    methods = listing([f"{name(f.method)} ({count(f.flagged)})" for f in agreeing])
    first = agreeing[0]
    return (
        f"In class {quoted(first.class_name)}, {methods} flag largely the same of its {plural(first.size, 'image')}: "
        f"of those that either of two methods flags, both flag {percent(first.agreement, 0)}."
    )


def _single_reasons(single: Sequence[Finding], classes: int) -> list[str]:
    reasons = []
    for method in dict.fromkeys(f.method for f in single):
        own = sorted((f for f in single if f.method == method), key=lambda f: -f.flagged)
        total, first = sum(f.flagged for f in own), own[0]
        if len(own) == 1:
            where = f"in class {quoted(first.class_name)}, {percent(first.flagged / first.size)} of it"
        else:
            where = f"in {len(own)} of {classes} classes, at most {count(first.flagged)} in one of them"
        scattered = len(own) > classes / 2 and first.flagged < total / 2
        reasons.append(
            f"{name(method)} flags {plural(total, 'image')} {where}, where no other method agrees."
            + (" Flags spread like this are common in ordinary data too." if scattered else "")
        )
    return reasons


def _told_reasons(results: CleanseResults, found: Sequence[Finding]) -> list[str]:
    reasons = []
    for method in dict.fromkeys(f.method for f in found if not f.counted):
        knowledge = told(results.methods[method].knowledge)
        reasons.append(
            f"{name(method)} was told the {knowledge} and flags as many images as that says, poisoned or not; "
            "its flags alone do not count."
        )
    return reasons


def _nothing_reason(results: CleanseResults) -> str:
    examined = plural(sum(results.images.counts), "image")
    methods = listing([name(m) for m in results.methods])
    return (
        f"{methods} examined {examined} in {plural(len(results.images.classes), 'class')}. "
        "That no method objects is not proof that nothing is there: read below what could not be seen."
    )
