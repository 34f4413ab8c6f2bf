"""The verdict of an inversion, decided here alone: which classes stand out, and what that comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doorward.core.alike import combine_alike
from doorward.core.order_test import OrderTest, combine
from doorward.core.results import Finding, Judgement, Level
from doorward.core.text import extent, listing, name, number, percent, plural, quoted
from doorward.inversion.results import Target
from doorward.inversion.search.runner import Outcome

CLEAR = 0.01  # a p-value at or below this is evidence; above it, and at or below the level, suspicious

RULE = (
    "For each class a method finds a statistic that is large when the class is unusually easy to reach. Its largest "
    "values are compared with those of the other classes: the p-value is the chance that a model without a backdoor "
    "shows an outlier as clear, over all classes and methods. It rests on the statistics of clean classes being "
    f"roughly normal; no fixed index decides. Evidence: p is at or below {CLEAR:g}. Suspicious: it is at or below the "
    "level."
)
PLANTED = 0.05  # p-value of a natural trigger at or below which a target's is called planted
FEW_CLASSES = 8  # with fewer, a backdoor must stand out very far


@dataclass(frozen=True, eq=False)
class Weighed:
    """All methods together.

    Args:
        p_value: of the model, corrected for the number of methods; None when no method allows a verdict.
        classes: p-value per class ``[K]``, corrected for classes and methods; NaN without a verdict.
        labels: classes at or below the level, most suspicious first.
    """

    p_value: float | None
    classes: NDArray[np.float64]
    labels: tuple[int, ...]


def together(outcomes: Sequence[Outcome]) -> OrderTest | None:
    """All methods' tests as one; None without any.

    Where all compared the classes at equal effort, as far as they do not tell the same (`combine_alike`); else
    cautiously, for bounds say little of how alike two statistics are.
    """
    tests = [o.test for o in outcomes if o.test is not None]
    even = [(o.named, o.compared) for o in outcomes if o.test is not None and o.named is not None and o.inverted.even]
    if len(even) < 2 or len(even) < len(tests):
        return combine(tests) if tests else None
    named, compared = zip(*even, strict=True)
    return combine([combine_alike(named, compared), *(o.shift for o in outcomes if o.test and o.shift)])


def weigh(combined: OrderTest | None, classes: int, level: float) -> Weighed:
    """Compare all methods' test with the level."""
    if combined is None:
        return Weighed(None, np.full(classes, np.nan), ())
    found = combined.classes
    labels = tuple(int(k) for k in np.argsort(found, kind="stable") if found[k] <= level)
    return Weighed(combined.p_value, found, labels)


def judge(
    p_value: float | None, targets: Sequence[Target], undecided: Mapping[str, str], also: Sequence[str] = ()
) -> tuple[Judgement, tuple[Finding, ...]]:
    """The verdict with its reasons, and a finding per target.

    Args:
        p_value: of the model; None when no method allows a verdict.
        targets: classes that stand out.
        undecided: why a method allows no verdict, by its name.
        also: what else speaks for a backdoor, in sentences.
    """
    why = [f"{name(method)}: {reason}." for method, reason in undecided.items() if reason]
    if p_value is None:
        return Judgement(level="undecided", headline="No verdict", reasons=tuple(why)), ()
    over = f"p = {number(p_value)} over all classes and methods."
    if not targets:
        said = "No class stands out"
        return Judgement(level="nothing found", p_value=p_value, headline=said, reasons=(over, *why)), ()
    called = [quoted(t.class_name) for t in targets]
    judgement = Judgement(
        level=_level(p_value),
        p_value=p_value,
        targets=tuple(t.class_name for t in targets),
        headline=f"A backdoor into {'class' if len(called) == 1 else 'classes'} {listing(called)}",
        reasons=(over, *also, *(_told(t) for t in targets if t.asr is not None)),
    )
    return judgement, tuple(_finding(t) for t in targets)


def _level(p_value: float | None) -> Level:
    return "evidence" if p_value is not None and p_value <= CLEAR else "suspicious"


def _finding(target: Target) -> Finding:
    stands_out = f"{name(target.method)} finds class {quoted(target.class_name)} easier to reach than the others."
    return Finding(
        method=target.method,
        label=target.label,
        class_name=target.class_name,
        level=_level(target.p_value),
        sentence=stands_out if target.asr is None else _success(target),
        p_value=target.p_value,
        file=target.file,
    )


def _told(target: Target) -> str:
    """A target's trigger in sentences: whether it works, and whether it is natural."""
    return " ".join(filter(None, (_success(target, interval=True), _natural(target))))


def _natural(target: Target) -> str:
    """What the references say of a target's trigger; empty where they say nothing."""
    if target.natural is None or target.carried is None:
        return ""
    works = f"On the references it works on {percent(target.carried.value)}"
    if target.natural <= PLANTED:
        return (
            f"{works}, and those of other classes on more: planted rather than natural (p = {number(target.natural)})."
        )
    return f"{works}, as those of other classes do: it may be natural (p = {number(target.natural)})."


def _success(target: Target, interval: bool = False) -> str:
    assert target.asr is not None
    span = f" ({extent(target.asr.low, target.asr.high)})" if interval else ""
    return (
        f"The trigger that {name(target.method)} found sends {percent(target.asr.value)}{span} of held-out images "
        f"to {quoted(target.class_name)}."
    )


def favoured_sentence(share: float, class_name: str) -> str:
    """That the head favours a class which stands out (`doorward.inversion.methods.head`)."""
    decided = f"{percent(share)} of random features as {quoted(class_name)}"
    return f"The last layer decides {decided}, more than as any other class."


def shift_sentence(p_value: float, nearest: Mapping[str, str]) -> str:
    """That most classes are near to one other class each.

    Args:
        nearest: class to the class that it is nearest to.
    """
    pairs = listing([f"{quoted(source)} to {quoted(target)}" for source, target in nearest.items()])
    each = "Most classes are unusually near to one other class each, as where every class is a target"
    return f"{each}: {pairs} (p = {number(p_value)})."


def few_classes(classes: int) -> tuple[str, ...]:
    """A warning where there are few classes to compare."""
    told = f"With {plural(classes, 'class')} a backdoor must stand out very far to be told."
    return (told,) if classes < FEW_CLASSES else ()
