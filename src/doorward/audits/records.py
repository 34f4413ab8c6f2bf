"""The plain values of an audit, as ``run.json`` holds them."""

from __future__ import annotations

from pydantic import Field

from doorward.core.results import ClassifierRecord, Count, ImagesRecord, Judged, Number, Record

# Share of the suspects that nets without them decide as labelled, from which they are no poison: of what such nets
# reach on the class's other images that they never saw; and of one, where that is not known.
_REFUTES, _REFUTES_ALONE = 0.6, 0.8
_KNOWN = 0.3  # of the others, below which nets know the class too little to speak of anyone


class StageRecord(Record):
    """What was done, and how long it took; 0 seconds where an interrupted audit had left it."""

    name: str
    seconds: float
    note: str = ""


class ArmsRecord(Record):
    """The experiment for one class.

    Args:
        size: images left out.
        control, without: success of the trigger per repeat, of nets trained without as many random images of the
            class, and without the suspects; empty without a trigger.
        tried: images that the trigger was tried on.
        unseen_control, unseen_without: share of suspects that those nets decide as labelled, none of which they saw.
        others: the same of random images of the class that the controls never saw either.
        p_value, p_unseen: that there is no difference.
        stops: whether the trigger works with the suspects alone.
        plain: whether it works on the model that is audited on half of all pictures at least, or an earlier round has
            shown it to be planted.
        teaches: whether suspects teach each other's label, and nothing else does; never said of a group where nets do
            not learn the set well: any natural kind of its own does that there.
        trained: ``anew``, or ``on`` from a copy of the model that had unlearnt the trigger.
    """

    size: Count
    control: tuple[Number, ...] = ()
    without: tuple[Number, ...] = ()
    tried: Count = 0
    unseen_control: tuple[Number, ...] = ()
    unseen_without: tuple[Number, ...] = ()
    others: tuple[Number, ...] = ()
    p_value: Number = None
    p_unseen: Number = None
    stops: bool = False
    plain: bool = False
    teaches: bool = False
    trained: str = "anew"

    @property
    def refutes(self) -> bool:
        """Whether the suspects are shown to be no poison.

        Nets that know none of them decide them as labelled, about as often as other images of the class that they
        never saw; poisoned ones they take for what they show.
        """
        as_labelled, others = mean_rate(self.unseen_without), mean_rate(self.others)
        if self.stops or self.teaches or as_labelled is None:
            return False
        if others is None or others < _KNOWN:
            return as_labelled >= _REFUTES_ALONE
        return as_labelled >= _REFUTES * others


class TargetRecord(Record):
    """A class that was looked into.

    Args:
        label, class_name: the class.
        round: of the audit in which it came up, from 1.
        level: what is said of it.
        evidence: p-value by kind of evidence, corrected for the number of classes.
        p_value: of the class, corrected for the kinds too; None without any test.
        suspects: images that are left out of the cleaned set.
        doubtful: images that stay in it, for the experiment does not show them to be poisoned; somebody should look.
        trigger: file of the trigger that was measured, in the run's folder; empty without.
        trigger_from: what found it: ``transfer``, ``mask``, ``universal``, ``window``.
        success: of that trigger on the suspect model.
        experiment: None where none was made.
        sentence: in words.
    """

    label: Count
    class_name: str
    round: Count = 1
    level: str
    evidence: dict[str, Number] = Field(default_factory=dict)
    p_value: Number = None
    suspects: Count = 0
    doubtful: Count = 0
    trigger: str = ""
    trigger_from: str = ""
    success: Number = None
    experiment: ArmsRecord | None = None
    sentence: str = ""


class TrialRecord(Record):
    """One copy of the set with a known trigger on some of its images.

    Args:
        images: that many.
        success: of the trigger on a net trained on the copy; what is not learned is no backdoor.
        level: what the audit said of the class.
        found, false: images to leave out that bear the trigger, and others.
    """

    images: Count
    success: Number = None
    level: str = "nothing found"
    found: Count = 0
    false: Count = 0

    @property
    def seen(self) -> bool:
        """Whether the audit would have found it: it names the class, and flags half of the images at least."""
        return self.level in ("planted", "evidence") and 2 * self.found >= self.images


class PowerRecord(Record):
    """How few poisoned images this audit would have found, by planting a known trigger.

    Args:
        recipe, size: of the trigger, a square of so many pixels.
        label, class_name: class that it led to.
        side: height and width of the pictures, smaller than those of the set where nets of the audit shrink them.
        trials: most images first.
    """

    recipe: str = "patch"
    size: Count
    label: Count
    class_name: str
    side: tuple[Count, Count]
    trials: tuple[TrialRecord, ...] = ()

    @property
    def smallest(self) -> TrialRecord | None:
        """The trial with fewest images up to which every one was found."""
        found = None
        for trial in sorted(self.trials, key=lambda trial: -trial.images):
            if not trial.seen:
                break
            found = trial
        return found


class AuditRecord(Judged):
    """``results`` of an audit run.

    Args:
        trained: whether the model is one that the audit trained.
        net: architecture of the nets that the experiment trains.
        unseen: share of images that such a net decides as labelled which it never saw: it knew the other half.
        handed_on: what the model of the run's folder is: ``anew``, trained without the suspects; ``on``, a copy of the
            given one trained on without them; empty where there is none.
        rounds: how often the set was looked at, each time without what was found before.
        left_out: stages that were not run, and why.
        power: how little would have been found; None where nobody asked.
        thumbnails: rows of ``thumbnails.npy`` by target: suspects, doubtful, others before and after the trigger.
    """

    images: ImagesRecord | None = None
    classifier: ClassifierRecord = ClassifierRecord()
    trained: bool = False
    net: str = ""
    unseen: Number = None
    handed_on: str = ""
    seed: int = 0
    level: float = 0.05
    rounds: Count = 1
    targets_looked_into: tuple[TargetRecord, ...] = ()
    suspects: Count = 0
    doubtful: Count = 0
    stages: tuple[StageRecord, ...] = ()
    left_out: tuple[str, ...] = ()
    power: PowerRecord | None = None
    warnings: tuple[str, ...] = ()
    thumbnails: dict[Count, dict[str, tuple[Count, ...]]] = Field(default_factory=dict)
    source: str = ""
    model: str = ""


def mean_rate(rates: tuple[Number, ...]) -> float | None:
    """The mean of the repeats that are known; None where there are none."""
    known = [r for r in rates if r is not None]
    return sum(known) / len(known) if known else None
