"""The verdict of a repair, decided here alone: whether the backdoor is shown to be gone, and what that is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from doorward.core.results import Finding, Judgement
from doorward.core.text import extent, listing, name, number, percent, plural, quoted
from doorward.repairs.results import ArmRecord, StandingRecord, VariationRecord, judged_arm

STILL = 0.1  # success above which, beyond chance, the triggers still work

SMALL = 1.5  # times the size before: up to there a fresh trigger is as small as the one that was found

RULE = (
    "Not repaired: in a fresh inversion of the repaired copy, with another seed, the target still stands out among the "
    "classes; or a fresh trigger as small as the one before still works; or variations of the triggers (other places, "
    f"shapes and colours than a repair trains on) succeed on more than {percent(STILL, 0)} of the held-out images, "
    "beyond chance and beyond what the same images give to a class that is no target; or the triggers themselves do. "
    "Repaired: none of these. Undecided: there is nothing to measure with, the inversion allows no verdict, or what is "
    "measured shows no backdoor in the model as given either. Every "
    "arm starts from the same classifier and is measured on the same clean images, which none of them saw; what "
    "fine-tuning or fresh batch-norm statistics do as well is not due to the triggers."
)
NOTHING_RULE = (
    "Nothing found: the inversion whose triggers were to be used came to a verdict, and it accuses no class. Nothing "
    "was done to the model. Its accuracy is measured on held-out clean images."
)
WORTH = "The attacker's own trigger is not known: one that no inversion sees, far from those found, may survive."
TRAINED_AGAINST = "the repair trained against these very ones, which by itself shows little."
NOT_THE_ATTACKERS = "they are the inversion's, not the attacker's."
UNSEEN = "A backdoor that this inversion does not see may be there."
BLIND = (
    "A fresh inversion, the triggers and their variations are as quiet on the model as given as on the repaired one: "
    "they cannot tell whether the backdoor is gone."
)
UNTOLD = "There were no triggers to measure with: nothing here tells whether a backdoor was there or is gone."


def judge(
    arms: Sequence[ArmRecord], classes: Sequence[str], *, accused: bool = True
) -> tuple[Judgement, tuple[Finding, ...]]:
    """The verdict with its reasons, and a finding for every class that is not repaired.

    Args:
        arms: the classifier as given first.
        classes: names.
        accused: whether the verdict of an inversion came with the triggers.
    """
    given, first = arms[0], judged_arm(arms)
    called = name(first.name or first.method)
    if given.asr is None or first.asr is None:
        headline = f"Repaired by {name(first.method)}; its effect on a backdoor was not measured"
        steps = [s for s in first.steps if s.accuracy.value is not None]
        reasons = (UNTOLD, *(f"{name(s.name)}: clean accuracy {percent(s.accuracy.value)}." for s in steps))
        return Judgement(level="undecided", headline=headline, reasons=reasons), ()
    failed = failures(first, given, classes)
    told = (*proof_told(first, given, classes), WORTH, *_beside_the_proof(arms, first))
    if failed:
        labels = [label for label in failed if label is not None]
        targets = tuple(classes[label] for label in labels)
        headline = (
            f"After {called} {listing([quoted(t) for t in targets])} is still a target"
            if targets
            else (f"After {called} the triggers still succeed")
        )
        why = tuple(sentence for sentences in failed.values() for sentence in sentences)
        judgement = Judgement(level="not repaired", headline=headline, targets=targets, reasons=(*why, *told))
        return judgement, _findings(first, failed, classes)
    if first.proof is None or given.proof is None:
        headline = f"Repaired by {called}; not proved, since no fresh inversion was asked for"
        return Judgement(level="undecided", headline=headline, reasons=told), ()
    if any(p is None for p in first.proof.p_values.values()):
        why = tuple(dict.fromkeys(f"{name(s.method)}: {s.undecided}." for s in first.proof.standings if s.undecided))
        headline = f"Repaired by {called}; a fresh inversion allows no verdict on it"
        return Judgement(level="undecided", headline=headline, reasons=(*why, *told)), ()
    if not accused and not stands_out(given):
        headline = "Nothing to repair was shown: no class of the model as given stands out"
        unaccused = "No verdict came with the triggers, and a fresh inversion of the model as given finds no target."
        return Judgement(level="undecided", headline=headline, reasons=(unaccused, _price(first), *told)), ()
    if not shown_before(given):
        headline = f"Repaired by {called}; nothing that is measured here shows a backdoor in the model as given either"
        return Judgement(level="undecided", headline=headline, reasons=(BLIND, *told)), ()
    over = ", ".join(number(p) for p in first.proof.p_values.values())
    if stands_out(given):
        headline = f"After {called} the target stands out no more (p = {over})"
    else:  # it never did: the variations say so
        headline = f"After {called} variations of the triggers do not succeed any more"
    return Judgement(level="repaired", headline=headline, reasons=told), ()


def nothing_to_repair(run: str) -> Judgement:
    """The verdict where an inversion accuses no class; ``run``: its folder, where it has one."""
    by = quoted(run) if run else "the inversion"
    reasons = (
        "The model is handed on as it came.",
        "Name a class with --target CLASS to repair all the same (in Python, give its triggers by class).",
        UNSEEN,
    )
    return Judgement(level="nothing found", headline=f"Nothing to repair: {by} accuses no class", reasons=reasons)


def _price(arm: ArmRecord) -> str:
    """What a repair that was not shown to be needed costs, and the choice that leaves."""
    kept = "the model as given may be kept."
    if arm.cost is None:
        return f"{arm.name} was run because it was asked for; {kept}"
    c = arm.cost
    span = f"{100 * c.low:.1f} to {100 * c.high:.1f}, paired, on the same {plural(c.trials, 'held-out image')}"
    points = f"{100 * c.value:.1f} points of clean accuracy ({span})"
    return f"{name(arm.name)} was run because it was asked for, and costs {points}; {kept}"


def stands_out(arm: ArmRecord) -> bool:
    """Whether any class of an arm stands out in its fresh inversion."""
    proof = arm.proof
    return proof is not None and (
        bool(proof.beside) or any(p is not None and p <= proof.level for p in proof.p_values.values())
    )


def shown_before(given: ArmRecord) -> bool:
    """Whether what a repair is measured by shows the backdoor in the model as given.

    Else that it shows none afterwards says nothing: a fresh inversion may miss what the first one found.
    """
    varied = given.proof.variations if given.proof else ()
    works = given.asr is not None and given.asr.low > STILL
    return stands_out(given) or works or any(_works(v) for v in varied)


def failures(arm: ArmRecord, given: ArmRecord, classes: Sequence[str]) -> dict[int | None, list[str]]:
    """Why an arm is not repaired, in sentences, by target; None: the triggers of all targets taken together."""
    found: dict[int | None, list[str]] = {}
    proof = arm.proof

    def add(label: int | None, sentence: str) -> None:
        found.setdefault(label, []).append(sentence)

    for label, p in (proof.p_values if proof else {}).items():
        if proof and p is not None and p <= proof.level:
            add(label, f"{quoted(classes[label])} still stands out in a fresh inversion: p = {number(p)}.")
    before = {(s.method, s.label): s for s in given.proof.standings} if given.proof else {}
    for s in proof.standings if proof else ():
        old = before.get((s.method, s.label))
        stood_out = proof and old and old.p_value is not None and old.p_value <= proof.level
        if stood_out and old and s.success and _small(s, old):
            sizes = f"{number(s.size)}; {number(old.size)}"
            add(
                s.label,
                f"A fresh trigger of {name(s.method)} into {quoted(classes[s.label])}, as small as before ({sizes}), "
                f"succeeds on {percent(s.success.value)}.",
            )
    for v in proof.variations if proof else ():
        if _works(v):
            told = f"{percent(v.success.value)} of held-out images"
            add(v.label, f"Variations of the triggers into {quoted(classes[v.label])} succeed on {told}.")
    for label, rate in arm.targets.items():
        if rate.low > STILL:
            add(label, f"The triggers into {quoted(classes[label])} themselves still succeed on {percent(rate.value)}.")
    if not found and arm.asr is not None and arm.asr.low > STILL:
        add(None, f"The triggers themselves still succeed on {percent(arm.asr.value)} of held-out images.")
    return found


def _works(variation: VariationRecord) -> bool:
    """Whether variations of a trigger succeed beyond chance and beyond what the same images give to other classes."""
    return variation.success.low > STILL + variation.natural


def _small(after: StandingRecord, before: StandingRecord) -> bool:
    """Whether a fresh trigger works that is no larger than the one before, give or take."""
    if after.size is None or before.size is None or after.success is None:
        return False
    return after.size <= SMALL * before.size and after.success.low > STILL


def proof_told(arm: ArmRecord, given: ArmRecord, classes: Sequence[str]) -> Iterator[str]:
    """The proof in sentences: sizes before and after, p, variations, classes beside the targets."""
    if arm.proof is None:
        return
    before = {(s.method, s.label): s.size for s in given.proof.standings} if given.proof else {}
    varied = {v.label: v.success.value for v in given.proof.variations} if given.proof else {}
    old_p = given.proof.p_values if given.proof else {}
    for label, p in arm.proof.p_values.items():
        sizes = "; ".join(
            f"{name(s.method)} {number(before.get((s.method, label)))} before, {number(s.size)} after "
            f"(other classes {number(s.others)}, smallest {number(s.smallest)})"
            for s in arm.proof.standings
            if s.label == label and s.size is not None
        )
        p_told = f"p = {number(p)}, {number(old_p.get(label))} before"
        yield f"Smallest triggers into {quoted(classes[label])} in a fresh inversion: {sizes or 'none'}; {p_told}."
    for v in arm.proof.variations:
        yield (
            f"Variations of the triggers into {quoted(classes[v.label])} succeed on {percent(varied.get(v.label))} "
            f"before and {percent(v.success.value)} after ({extent(v.success.low, v.success.high)}, "
            f"{plural(v.success.trials, 'held-out image')}); no other class gets more than {percent(v.natural)} of "
            "the same images."
        )
    for label, p in arm.proof.beside.items():
        yield f"{quoted(classes[label])}, which was no target, stands out after it: p = {number(p)}."


def _beside_the_proof(arms: Sequence[ArmRecord], first: ArmRecord) -> Iterator[str]:
    """Accuracy, controls, and last the success of the triggers that were trained against."""
    given = arms[0]
    yield (
        f"Clean accuracy: {percent(given.accuracy.value)} before, {percent(first.accuracy.value)} after "
        f"({extent(first.accuracy.low, first.accuracy.high)})."
    )
    for arm in arms:
        if arm.role == "control" and arm.asr is not None and arm is not first:
            yield f"Without triggers, {name(arm.name)} leaves the found ones at {percent(arm.asr.value)}."
    if given.asr is not None and first.asr is not None:
        worth = TRAINED_AGAINST if "triggers" in first.given else NOT_THE_ATTACKERS
        span = extent(first.asr.low, first.asr.high)
        yield (
            f"The found triggers succeed on {percent(given.asr.value)} before and {percent(first.asr.value)} after "
            f"({span}); {worth}"
        )


def _findings(
    arm: ArmRecord, failed: Mapping[int | None, Sequence[str]], classes: Sequence[str]
) -> tuple[Finding, ...]:
    """One per class that is not repaired; one about none where the triggers work only taken together."""
    file = "weights.safetensors" if arm.folder in (None, ".") else f"{arm.folder}/weights.safetensors"
    return tuple(
        Finding(
            method=arm.method,
            label=label,
            class_name="" if label is None else classes[label],
            level="not repaired",
            sentence=f"After {name(arm.name)}: {sentences[0]}",
            p_value=None if label is None or arm.proof is None else arm.proof.p_values.get(label),
            file=file,
        )
        for label, sentences in failed.items()
    )
