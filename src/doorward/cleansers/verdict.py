"""The verdict of a cleansing, decided here alone: which classes stand out, by which methods, and what that comes to.

Any training set has outliers, and any method flags some of them. So a method's number for a class is compared with the
other classes of the same set and net (`order_test`), and counts only where the method flags images there too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doorward.cleansers.suspects import AGREEING_SHARE, agreement
from doorward.cleansers.suspicion import Suspicion
from doorward.core.order_test import FEWEST_CLASSES, order_test, several
from doorward.core.results import MOST_IMAGES, Finding, Judgement, Level
from doorward.core.stats import Rate
from doorward.core.text import count, listing, name, number, percent, plural, quoted

FEWEST_IMAGES = 5  # flagged in a class: fewer are outliers, which any class has
POOR_ACCURACY = 0.7  # on the training images: below it the net has not learned them, nor perhaps a backdoor
FIXES_THE_NUMBER = frozenset({"poisoning_rate"})  # told it, a method flags that many images whether poisoned or not

RULE = (
    "A method's number for a class is compared with those of the other classes: the p-value is the chance that a set "
    "without poison shows a class as extreme, over all classes and methods. The method transfer compares with what "
    "classes without poison have shown in other sets as well; the smaller of its two p-values counts, doubled. A class "
    f"in which fewer than {FEWEST_IMAGES} images are flagged does not count. Suspicious: p is at or below the level. "
    "Evidence: two methods of different kinds (features; decisions under a filter; triggers) accuse the same class, "
    f"and at least {percent(AGREEING_SHARE, 0)} of the images that either flags are flagged by both. A method that was "
    "told how many images to flag has no p-value."
)


@dataclass(frozen=True)
class Witness:
    """A method with what it says, before it is weighed.

    Args:
        kind: what its evidence is made of; two methods of one kind are no two witnesses.
        knowledge: that it used and an auditor does not have in practice.
    """

    name: str
    kind: str
    knowledge: tuple[str, ...]
    suspicion: Suspicion

    @property
    def told(self) -> bool:
        """Whether it knew how many images to flag."""
        return bool(FIXES_THE_NUMBER & set(self.knowledge))


@dataclass(frozen=True, eq=False)
class Test:
    """p-values of one method: over all classes, and per class ``[K]``; None and a reason where there is no test."""

    p_value: float | None
    classes: NDArray[np.float64]
    undecided: str = ""


@dataclass(frozen=True, eq=False)
class Weighed:
    """What `weigh` gives."""

    judgement: Judgement
    findings: tuple[Finding, ...]
    tests: dict[str, Test]


def weigh(
    witnesses: Sequence[Witness], labels: NDArray[np.int64], classes: Sequence[str], accuracy: Rate, level: float = 0.05
) -> Weighed:
    """Weigh all methods of one cleansing.

    Args:
        labels: training labels ``[N]``.
        classes: K names.
        accuracy: of the net on these images.
        level: chance of `suspicious` on a set without poison.

    Returns: the verdict; a finding per method and class with flagged images, best supported first; every method's test.
    """
    flagged = {w.name: np.bincount(labels[w.suspicion.flag], minlength=len(classes)) for w in witnesses}
    tests = {w.name: _test(w, flagged[w.name]) for w in witnesses}
    tried = sum(t.p_value is not None for t in tests.values())
    sizes = np.bincount(labels, minlength=len(classes))
    found = []
    for w in witnesses:
        for label in np.flatnonzero(flagged[w.name]).tolist():
            rivals = [(o, _agreement(w, o, labels, label)) for o in witnesses if o.kind != w.kind]
            p = None if tests[w.name].p_value is None else several(float(tests[w.name].classes[label]), tried)
            agreeing = [o for o, share in rivals if share >= AGREEING_SHARE]
            weight = _level(w, p, [(o, tests[o.name], label) for o in agreeing], tried, level)
            found.append(
                Finding(
                    method=w.name,
                    label=label,
                    class_name=classes[label],
                    level=weight,
                    sentence=f"{w.name} flags {flagged[w.name][label]:,} of {sizes[label]:,} images of class "
                    f"{quoted(classes[label])}.",
                    p_value=p,
                    flagged=int(flagged[w.name][label]),
                    size=int(sizes[label]),
                    agreement=max((share for _, share in rivals), default=0.0),
                    counted=not w.told,
                    images=_worst(w.suspicion, labels, label),
                )
            )
    order = ("evidence", "suspicious", "nothing found")
    found.sort(key=lambda f: (order.index(f.level), not f.counted, _or_one(f.p_value), -f.agreement, -f.flagged))
    return Weighed(_judge(witnesses, found, tests, accuracy, sizes, classes, level), tuple(found), tests)


def _or_one(p: float | None) -> float:
    return 1.0 if p is None else p


def _test(w: Witness, flagged: NDArray[np.int64]) -> Test:
    """Compare a method's numbers for the classes; those with few flagged images get p = 1."""
    none = np.ones(len(flagged))
    if w.told:
        return Test(None, none, "was told how many images to flag")
    statistic = w.suspicion.tested
    if statistic is None:
        return Test(None, none, "gives no number per class to test")
    compared = np.isfinite(statistic)
    enough = int(compared.sum()) >= FEWEST_CLASSES
    if not enough and w.suspicion.alone is None:
        return Test(None, none, f"{int(compared.sum())} classes to compare; expected at least {FEWEST_CLASSES}")
    ways = []
    if enough and np.ptp(statistic[compared]) > 0:
        padded = np.full(len(flagged), np.nan)
        padded[: len(statistic)] = statistic
        ways.append(order_test(padded, least=w.suspicion.spread).classes)
    if w.suspicion.alone is not None:
        ways.append(np.array([several(float(p), len(flagged)) for p in w.suspicion.alone]))
    smallest = np.min(ways, axis=0) if ways else none
    classes = np.where(flagged >= FEWEST_IMAGES, np.minimum(1.0, len(ways) * smallest), 1.0)
    return Test(float(classes.min()), classes)


def _agreement(one: Witness, other: Witness, labels: NDArray[np.int64], label: int) -> float:
    """Jaccard index of two methods' flags in a class; 0 below `FEWEST_IMAGES` in common."""
    inside = labels == label
    a, b = one.suspicion.flag & inside, other.suspicion.flag & inside
    return agreement(a, b) if int((a & b).sum()) >= FEWEST_IMAGES else 0.0


def _level(
    w: Witness, p: float | None, agreeing: Sequence[tuple[Witness, Test, int]], tried: int, level: float
) -> Level:
    """Evidence: significant, beside another kind that is too or was told the number; or without tests, two kinds."""
    own = p is not None and p <= level
    for other, test, label in agreeing:
        theirs = test.p_value is not None and several(float(test.classes[label]), tried) <= level
        if (own and (theirs or other.told)) or (w.told and theirs):
            return "evidence"
        if p is None and test.p_value is None and not w.told and not other.told:  # too few classes for any test
            return "suspicious"
    return "suspicious" if own else "nothing found"


def _worst(suspicion: Suspicion, labels: NDArray[np.int64], label: int) -> tuple[int, ...]:
    """Indices of the flagged images of a class, highest score first."""
    rows = np.flatnonzero(suspicion.flag & (labels == label))
    scores = np.nan_to_num(suspicion.score[rows], nan=-np.inf)
    return tuple(int(i) for i in rows[np.argsort(-scores, kind="stable")][:MOST_IMAGES])


def _judge(
    witnesses: Sequence[Witness],
    found: Sequence[Finding],
    tests: Mapping[str, Test],
    accuracy: Rate,
    sizes: NDArray[np.int64],
    classes: Sequence[str],
    level: float,
) -> Judgement:
    tried = [t for t in tests.values() if t.p_value is not None]
    p = several(min(float(t.p_value) for t in tried if t.p_value is not None), len(tried)) if tried else None
    evidence = [f for f in found if f.level == "evidence"]
    single = [f for f in found if f.level == "suspicious"]
    reasons = [_agreed(evidence, label) for label in list(dict.fromkeys(f.label for f in evidence))[:4]]
    reasons += [_alone(f) for f in single[:4]] + _told(witnesses, found)
    if evidence:
        targets = list(dict.fromkeys(f.class_name for f in evidence))
        return _said("evidence", f"Evidence of a backdoor in class {_named(targets)}", p, targets, reasons)
    doubt = _unlearned(accuracy) or ("" if single else _untested(tests))
    if doubt:
        return _said("undecided", "Undecided", p, [], [doubt, *reasons, *_table_only(found)])
    if single:
        targets = list(dict.fromkeys(f.class_name for f in single))
        told = plural(len({f.method for f in single}), "method")
        return _said("suspicious", f"Suspicious: class {_named(targets)}, by {told}", p, targets, reasons)
    examined = f"{plural(int(sizes.sum()), 'image')} in {plural(len(classes), 'class')}"
    nothing = (
        f"{listing([name(w.name) for w in witnesses])} examined {examined}; no class stands out at level {level:g}. "
        "That is not proof that nothing is there: the page of this run says what could not be seen."
    )
    return _said("nothing found", "Nothing found by these methods", p, [], [nothing, *reasons, *_table_only(found)])


def _said(level: Level, headline: str, p: float | None, targets: list[str], reasons: list[str]) -> Judgement:
    return Judgement(level=level, p_value=p, targets=tuple(targets), headline=headline, reasons=tuple(reasons))


def _named(targets: Sequence[str]) -> str:
    return listing([quoted(target) for target in targets], 3)


def _unlearned(accuracy: Rate) -> str:
    """That the net is no witness, where it has not learned its training images."""
    if not accuracy.trials or accuracy.value >= POOR_ACCURACY:
        return ""
    return (
        f"The model is right on {percent(accuracy.value)} of these images only. It has not learned them, nor perhaps a "
        "backdoor in them; train it further and look again."
    )


def _untested(tests: Mapping[str, Test]) -> str:
    """That no method could be tested, and why, where that is so."""
    if any(t.p_value is not None for t in tests.values()):
        return ""
    return "No method has a p-value: " + "; ".join(f"{name(m)}: {t.undecided}" for m, t in tests.items()) + "."


def _agreed(evidence: Sequence[Finding], label: int | None) -> str:
    agreeing = [f for f in evidence if f.label == label]
    methods = listing([f"{name(f.method)} ({count(f.flagged)})" for f in agreeing])
    first = agreeing[0]
    return (
        f"In class {quoted(first.class_name)}, {methods} flag largely the same of its {plural(first.size, 'image')}: "
        f"of those that either of two kinds of method flags, both flag {percent(first.agreement, 0)}."
    )


def _alone(f: Finding) -> str:
    share = f"{percent(f.flagged / f.size)} of it" if f.size else ""
    p = "" if f.p_value is None else f" (p = {number(f.p_value)})"
    return f"{name(f.method)} flags {plural(f.flagged, 'image')} in class {quoted(f.class_name)}, {share}{p}."


def _table_only(found: Sequence[Finding]) -> list[str]:
    """What is flagged without weight: said, so that nobody takes the table for the verdict."""
    rest = [f for f in found if f.level == "nothing found" and f.counted]
    if not rest:
        return []
    total, where = plural(sum(f.flagged for f in rest), "image"), plural(len({f.label for f in rest}), "class")
    return [
        f"{total} flagged in {where} stand in the table alone: classes without poison look like this too. "
        "'doorward audit' tries them by experiment."
    ]


def _told(witnesses: Sequence[Witness], found: Sequence[Finding]) -> list[str]:
    flagging = {f.method for f in found}
    return [
        f"{name(w.name)} was told the {', '.join(k.replace('_', ' ') for k in w.knowledge)} and flags as many images "
        "as that says, poisoned or not; its flags alone do not count."
        for w in witnesses
        if w.told and w.name in flagging
    ]
