"""The verdict of an audit, decided here alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from doorward.audits.evidence import CLUSTERS, CONTRADICTION, TRANSFER
from doorward.audits.records import ArmsRecord, TargetRecord
from doorward.core.order_test import OrderTest, several
from doorward.core.results import FINDINGS, LEVELS, Finding, Judgement, Level
from doorward.core.text import listing, percent, plural, quoted

RULE = (
    "Planted: trained again without the suspects, the trigger loses its success, and trained without as many images "
    "of the class (a third of the suspects among them, the others random) it keeps it; and either the tests accuse "
    "the class and the trigger works on half of all pictures, or suspects teach each other's label. Evidence: the "
    "experiment alone, with such a trigger, unless all tests together say that the class is like the others (p above "
    "0.5); or two kinds of evidence that each accuse the class, or one with suspects that teach each other's label. "
    "Suspicious: all tests together accuse the class (an experiment counts as one more), or suspects teach each "
    "other's label and the tests lean that way (p up to 0.1); teaching does not count where nets do not learn the set "
    "well. Suspects of which nets that know none of them decide more than half as labelled make no backdoor, whatever "
    "the trigger does. Where these reach three fifths of what such nets decide as labelled of the class's other "
    "images, and the experiment shows nothing, the tests that named the suspects do not count, nor what they have in "
    "common, unless it works on half of all pictures; nor do clusters of a class all whose images such nets decide as "
    "labelled. Where the model is right on fewer than 70 % of the set, and nets of the audit do not learn it either, "
    "no class is more than suspicious. Tests of several kinds count together as 1 - (1 - p)^kinds, each class among "
    "all classes."
)
LEANS = 0.1  # p-value of all tests together, up to which suspects that teach each other's label are worth a word
LIKE_OTHERS = 0.5  # p-value of all tests together, above which nothing speaks against a class
UNSEEN = (
    "An audit does not see true labels under a trigger, a handful of images (--power says how many it would have "
    "found), or a small trigger at changing places where nets hardly learn the set."
)


def level_of(
    evidence: dict[str, float | None],
    together: float | None,
    arms: ArmsRecord | None,
    level: float,
    back: Sequence[str] = (),
) -> Level:
    """What one class comes to.

    An experiment counts as one test more, as in the p-value of the whole audit: the two do not contradict each other.

    Args:
        back: kinds of evidence that are taken back; ``together`` is without them.
    """
    tested = together if together is None or arms is None else several(together, 2)
    accused = tested is not None and tested <= level
    spoken = [p for kind, p in evidence.items() if p is not None and kind not in back]
    kinds = sum(several(p, len(evidence)) <= level for p in spoken)
    stops, teaches = (False, False) if arms is None else (confirmed(arms, together), arms.teaches)
    if stops and (accused or teaches):
        return "planted"
    if stops or kinds >= 2 or (accused and teaches):
        return "evidence"
    return "suspicious" if accused or (teaches and leans(together)) else "nothing found"


def taken_back(arms: ArmsRecord | None, *, unopposed: bool = False) -> tuple[str, ...]:
    """Kinds of evidence that do not count: where nets show that the suspects are what their label says.

    Clusters of a class that lie apart may be a natural kind of its own, and what such a kind has in common sends some
    other images to the class, too. What was seen of triggers otherwise stays, and so does what plainly works.

    Args:
        unopposed: whether nets that learn the set decide all images of the class as labelled, each group by a net that
            never saw it; then there is no suspect to make an experiment with.
    """
    if unopposed and arms is None:
        return (CLUSTERS, CONTRADICTION)
    if arms is None or not arms.refutes:
        return ()
    return (CLUSTERS, CONTRADICTION) if arms.plain else (CLUSTERS, CONTRADICTION, TRANSFER)


def told_otherwise(kinds: Mapping[str, float | None], together: float | None, back: Sequence[str]) -> float | None:
    """The p-value of a class without the kinds of evidence that are taken ``back``."""
    if together is None or not back:
        return together
    left = [p for kind, p in kinds.items() if kind not in back and p is not None]
    return max(together, several(min(left, default=1.0), len(kinds)))


def leans(together: float | None) -> bool:
    """Whether the tests speak a little against a class; without any, nothing says otherwise.

    Hard images of a clean class are a kind of their own, and teach each other's label now and then.
    """
    return together is None or together <= LEANS


def confirmed(arms: ArmsRecord, together: float | None) -> bool:
    """Whether a trigger that stops counts, of suspects that do not teach each other's label.

    Without its hard images a class's natural trigger loses much of its success, too. So it has to work on most
    pictures, and not every test may say that the class is like the others.
    """
    like_others = together is not None and together > LIKE_OTHERS
    return arms.stops and (arms.teaches or (arms.plain and not like_others))


def sentence(target: TargetRecord) -> str:
    """A class in words."""
    name, arms = quoted(target.class_name), target.experiment
    if arms is None:
        return f"{name}: {plural(target.suspects, 'suspect')}; no experiment was made."
    told = []
    if arms.control:
        without, control = (
            float(np.mean([r for r in rates if r is not None])) for rates in (arms.without, arms.control)
        )
        how = "" if arms.trained == "anew" else "copies of the model that had forgotten the trigger were trained on; "
        told.append(
            f"{how}without {arms.size} suspects of {name} its trigger works on {percent(without)} of pictures; without "
            f"as many images of the class, a third of the suspects among them, on {percent(control)}"
        )
    unseen = [r for r in arms.unseen_control if r is not None]
    alone = [r for r in arms.unseen_without if r is not None]
    if unseen and alone:
        told.append(
            f"nets that know other suspects of {name} decide {percent(float(np.mean(unseen)))} of those that they "
            f"never saw as labelled, nets that know none {percent(float(np.mean(alone)))}"
        )
    if told and target.suspects not in (0, arms.size):
        told.append(f"{plural(target.suspects, 'image')}, of these suspects or like them, should be left out")
    text = "; ".join(told)
    return f"{text[:1].upper()}{text[1:]}." if text else f"{name}: nothing could be measured."


def judge(
    targets: Sequence[TargetRecord],
    together: OrderTest | None,
    *,
    suspects: int,
    undecided: str = "",
    doubted: str = "",
    left_out: Sequence[str] = (),
    beside: Sequence[str] = (),
) -> Judgement:
    """The verdict with its reasons: that of the worst class.

    Args:
        together: all kinds of the first round as one test; the experiments' p-values count as one kind more.
        undecided: why nothing can be decided; empty where it can.
        doubted: why the tests alone accuse nobody; empty where they may.
        beside: what has to be known where nothing is found.
    """
    p = None if together is None else _whole(together, targets)
    worst = min((LEVELS.index(t.level) for t in targets), default=LEVELS.index("nothing found"))  # type: ignore[arg-type]
    level: Level = LEVELS[worst]
    accused = speaking(targets)
    names = tuple(dict.fromkeys(t.class_name for t in accused))  # a class may come up in several rounds
    told = tuple(t.sentence for t in accused if t.sentence)
    rest = tuple(f"Not run: {what}." for what in left_out)
    if undecided and level == "nothing found":
        level = "undecided"
    if doubted and level == "suspicious":
        level, undecided, accused, names = "undecided", doubted, [], ()
    headline = {
        "planted": f"A backdoor into {listing([quoted(n) for n in names])} was planted",
        "evidence": f"Evidence of a backdoor into {listing([quoted(n) for n in names])}",
        "suspicious": f"{listing([quoted(n) for n in names])} {'is' if len(names) == 1 else 'are'} suspicious",
        "undecided": "Undecided",
        "nothing found": "Nothing found",
    }[level]
    if suspects and accused:
        headline += f": {plural(suspects, 'image')} to leave out"
    unseen = (*beside, UNSEEN) if level == "nothing found" else ()
    reasons = (*((undecided,) if undecided else ()), *told, *unseen, *rest)
    return Judgement(level=level, p_value=p, targets=names, headline=headline, reasons=reasons)


def speaking(targets: Sequence[TargetRecord]) -> list[TargetRecord]:
    """The rows of accused classes, worst first; beside a finding that weighs more, a mere suspicion is none."""
    found = sorted((t for t in targets if t.level in FINDINGS), key=lambda t: LEVELS.index(t.level))  # type: ignore[arg-type]
    sure = {t.label for t in found if t.level != "suspicious"}
    return [t for t in found if t.label in sure or not sure]


def findings(targets: Sequence[TargetRecord], images: dict[int, list[int]], ids: Sequence[str]) -> tuple[Finding, ...]:
    """One per accused class, with its most certain suspects."""
    made = []
    for t in speaking(targets):
        rows = images.get(t.label, [])[:100]
        made.append(
            Finding(
                method="audit",
                label=t.label,
                class_name=t.class_name,
                level=t.level,  # type: ignore[arg-type]
                sentence=t.sentence,
                p_value=t.p_value,
                flagged=t.suspects,
                size=t.suspects,
                images=tuple(rows),
                ids=tuple(ids[r] for r in rows) if ids else (),
                file=t.trigger,
            )
        )
    return tuple(made)


def _whole(together: OrderTest, targets: Sequence[TargetRecord]) -> float:
    """Tests and experiments as one p-value: the smaller of the two, corrected for being two.

    A test counts as the experiment leaves it (`told_otherwise`), and an experiment as far as it is `confirmed`.
    """
    tried = [t for t in targets if t.experiment is not None and t.experiment.p_value is not None]
    shown = [t.experiment.p_value for t in tried if t.experiment and confirmed(t.experiment, t.p_value)]
    first = {t.label: t.p_value for t in targets if t.round == 1 and t.p_value is not None}
    classes = [max(float(p), first.get(label, 0.0)) for label, p in enumerate(together.classes)]
    tested = max(together.p_value, min(classes))
    least = min([1.0, *(p for p in shown if p is not None)])
    return several(min(tested, min(1.0, least * len(tried))), 2) if tried else tested
