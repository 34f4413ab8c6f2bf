"""The verdict of a repair, decided here alone: whether the triggers still work, and what that is worth."""

from __future__ import annotations

from collections.abc import Sequence

from doorward.core.results import Finding, Judgement
from doorward.core.text import extent, name, percent, plural, quoted
from doorward.repairs.results import ArmRecord, judged_arm

STILL = 0.1  # success above which, beyond chance, the triggers still work

RULE = (
    "Every arm starts from the same classifier and is measured on the same clean images, which none of them saw. What "
    "a repair does beyond the control arms is due to its triggers; what fine-tuning or fresh batch-norm statistics do "
    f"as well is not. Not repaired: the triggers succeed on more than {percent(STILL, 0)} of the images, beyond chance."
)
TRAINED_AGAINST = (
    "Success is measured with the same triggers that the repair trained against. The attacker's own trigger is another "
    "one and may survive."
)
NOT_THE_ATTACKERS = (
    "Success is measured with the triggers that the inversion found. The attacker's own trigger is another one and may "
    "survive."
)


def judge(arms: Sequence[ArmRecord], classes: Sequence[str]) -> tuple[Judgement, tuple[Finding, ...]]:
    """The verdict with its reasons, and a finding for every class whose triggers still work.

    Args:
        arms: the classifier as given first.
        classes: names.
    """
    given, first = arms[0], judged_arm(arms)
    if given.asr is None or first.asr is None:
        headline = f"Repaired by {name(first.method)}; its effect on a backdoor was not measured"
        untold = "There were no triggers to measure with: nothing here tells whether a backdoor was there or is gone."
        steps = [s for s in first.steps if s.accuracy.value is not None]
        reasons = (untold, *(f"{name(s.name)}: clean accuracy {percent(s.accuracy.value)}." for s in steps))
        return Judgement(level="undecided", headline=headline, reasons=reasons), ()
    before, after = percent(given.asr.value), percent(first.asr.value)
    reasons = (
        f"After it: {extent(first.asr.low, first.asr.high)}, on {plural(first.asr.trials, 'held-out image')}.",
        TRAINED_AGAINST if "triggers" in first.given else NOT_THE_ATTACKERS,
        *(
            f"Without triggers, {name(arm.name)} leaves {percent(arm.asr.value)}."
            for arm in arms
            if arm.role == "control" and arm.asr is not None
        ),
        f"Clean accuracy: {percent(given.accuracy.value)} before, {percent(first.accuracy.value)} after "
        f"({extent(first.accuracy.low, first.accuracy.high)}).",
    )
    if first.asr.low <= STILL:
        headline = f"The triggers succeed on {before} of images before and on {after} after {name(first.name)}"
        return Judgement(level="repaired", headline=headline, reasons=reasons), ()
    headline = f"After {name(first.name)} the triggers still succeed on {after} of images; before, on {before}"
    found = _findings(first, classes)
    targets = tuple(f.class_name for f in found if f.label is not None)
    return Judgement(level="not repaired", headline=headline, targets=targets, reasons=reasons), found


def _findings(arm: ArmRecord, classes: Sequence[str]) -> tuple[Finding, ...]:
    """One per class whose triggers still work; one about none where they do only taken together."""
    file = "weights.safetensors" if arm.folder in (None, ".") else f"{arm.folder}/weights.safetensors"
    still = {label: rate for label, rate in arm.targets.items() if rate.low > STILL}
    if not still and arm.asr is not None:
        told = f"After {name(arm.name)} the triggers still succeed on {percent(arm.asr.value)} of held-out images."
        return (Finding(method=arm.method, level="not repaired", sentence=told, file=file),)
    return tuple(
        Finding(
            method=arm.method,
            label=label,
            class_name=classes[label],
            level="not repaired",
            sentence=f"After {name(arm.name)} the triggers into {quoted(classes[label])} still succeed on "
            f"{percent(rate.value)} of held-out images.",
            file=file,
        )
        for label, rate in still.items()
    )
