"""What `repair` returns, and its form on disk: one definition for writer, reader, score, report and papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import Field

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.results import (
    ClassifierRecord,
    Count,
    ImagesRecord,
    Judged,
    Number,
    RateRecord,
    Record,
    Result,
    parse,
)
from doorward.core.stats import Paired
from doorward.models.files import load_classifier
from doorward.models.open.architectures import Named
from doorward.repairs.arms import Arm, Role
from doorward.repairs.files import copy_arm, save_arm


class StepRecord(Record):
    """One step of a method's own record; ``accuracy``: on clean images that took no part in it."""

    name: str
    accuracy: RateRecord


class CostRecord(Record):
    """Accuracy that an arm costs: the classifier as given minus the arm, on the same images (`Paired`).

    ``lost``, ``gained``: images that only the classifier as given, only the arm decides rightly.
    """

    value: float = Field(ge=-1, le=1, allow_inf_nan=False)
    low: float = Field(ge=-1, le=1, allow_inf_nan=False)
    high: float = Field(ge=-1, le=1, allow_inf_nan=False)
    lost: Count
    gained: Count
    trials: Count

    @classmethod
    def of(cls, cost: Paired) -> CostRecord:
        """The record of a paired difference."""
        low, high = cost.interval
        return cls(value=cost.value, low=low, high=high, lost=cost.lost, gained=cost.gained, trials=cost.trials)

    def __str__(self) -> str:
        """In points of accuracy."""
        return str(Paired(self.lost, self.gained, self.trials))


class StandingRecord(Record):
    """A target class in a fresh inversion, by one method (`doorward.repairs.proof`).

    Args:
        size: of its smallest trigger, in the method's unit; None where none was found.
        others, smallest: median and smallest of the other classes' sizes.
        p_value: of the class by this method; None where it allows no verdict, and ``undecided`` says why.
        success: of its fresh trigger on the held-out images; None without one.
    """

    method: str
    label: Count
    size: Number = None
    others: Number = None
    smallest: Number = None
    p_value: Number = None
    undecided: str = ""
    success: RateRecord | None = None


class VariationRecord(Record):
    """Success of variations of the found triggers of a target: of a family wider than what repairs train on.

    Args:
        success: on the held-out images of other classes, each under several draws, counted as so many images.
        natural: the largest share that the same stamped images give to a class that is no target.
    """

    label: Count
    success: RateRecord
    natural: float = Field(ge=0, le=1, allow_inf_nan=False)


class ProofRecord(Record):
    """What is shown without the triggers that a repair trained against: a fresh inversion, and variations.

    Args:
        seed, images: of the inversion; no repair used that seed.
        p_values: of the targets, over all methods; None where no method allows a verdict.
        beside: classes that were no target and stand out, with their p-values.
        standings, variations: per target and method; per target.
    """

    seed: Count
    images: Count
    level: float = Field(0.05, gt=0, lt=1)
    p_values: dict[Count, Number] = Field(default_factory=dict)
    beside: dict[Count, float] = Field(default_factory=dict)
    standings: tuple[StandingRecord, ...] = ()
    variations: tuple[VariationRecord, ...] = ()

    @property
    def p_value(self) -> float | None:
        """The smallest of the targets' p-values."""
        return min((p for p in self.p_values.values() if p is not None), default=None)

    @property
    def varied(self) -> float | None:
        """The most that variations into one target succeed."""
        return max((v.success.value or 0.0 for v in self.variations), default=None)


class ArmRecord(Record):
    """One arm of the comparison.

    Args:
        accuracy: on the held-out clean images.
        cost: of that accuracy, on the same images; None for the classifier as given, and in older runs.
        asr, targets: success of the inverted triggers on the same images, in all and by target; None, empty without.
        settings, given, knowledge: what the method was configured with and handed.
        folder: of its classifier in the run; None for the classifier as it was given.
        file: in that folder, its weights in the form that the model came in; None for a model of Doorward's own.
        proof: of repairs and of the classifier as given; None for controls, without triggers, and in older runs.
    """

    name: str
    role: Role
    method: str = ""
    accuracy: RateRecord
    cost: CostRecord | None = None
    asr: RateRecord | None = None
    targets: dict[Count, RateRecord] = Field(default_factory=dict)
    seconds: Number = None
    settings: dict[str, Any] = Field(default_factory=dict)
    given: tuple[str, ...] = ()
    knowledge: tuple[str, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    details: dict[str, Any] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    folder: str | None = None
    file: str | None = None
    proof: ProofRecord | None = None


class TargetRecord(Record):
    """A class whose inverted triggers were used: the inversions they are of, and how many.

    ``accused``: whether the inversion's verdict named it; None in older runs.
    """

    class_name: str
    label: Count
    method: str
    stamps: Count
    accused: bool | None = None


class TriggersRecord(Record):
    """Where the triggers come from; ``run``: the folder of the inversion, where there is one."""

    run: str = ""
    targets: tuple[TargetRecord, ...] = ()


class UsedImages(ImagesRecord):
    """The clean images; of those that were taken of them, so many to repair with and so many to measure on."""

    fitted: Count
    held_out: Count


class RepairedRecord(ClassifierRecord):
    """The classifier under repair."""

    classes: Count
    shape: tuple[Count, Count, Count]


class RepairRecord(Judged):
    """``results`` of a repair run.

    Args:
        arms: the classifier as given, then methods, controls, oracle; alone where there is nothing to repair.
    """

    images: UsedImages
    classifier: RepairedRecord
    triggers: TriggersRecord | None = None
    arms: tuple[ArmRecord, ...] = Field(min_length=1)
    warnings: tuple[str, ...] = ()
    source: str = ""
    model: str = ""

    @property
    def given(self) -> ArmRecord:
        """The classifier before any repair."""
        return self.arms[0]

    @property
    def first(self) -> ArmRecord:
        """The arm that the verdict is about."""
        return judged_arm(self.arms)

    @property
    def kept(self) -> ArmRecord:
        """The arm whose classifier lies at the root of the run."""
        return self.arms[:2][-1]


def judged_arm(arms: Sequence[ArmRecord]) -> ArmRecord:
    """The first method; a control, or the classifier as given, stands for itself where it is all there is."""
    return next((arm for arm in arms if arm.role == "repair"), arms[:2][-1])


@dataclass(frozen=True, eq=False, repr=False)
class Repair(Result):
    """What `repair` gives: classifiers without their backdoor side by side, and what shows whether it is gone.

    Args:
        arms: with their classifiers, the one as given first; empty when the result was read from a folder.
        folder, device: of the run that it was read from, where its classifiers are; where they are loaded to.
    """

    verb: ClassVar[str] = "repair"
    facts: RepairRecord
    arms: tuple[Arm, ...] = ()
    folder: Path | None = None
    device: torch.device | str = "cpu"

    @property
    def record(self) -> RepairRecord:
        """All plain values."""
        return self.facts

    @property
    def classifier(self) -> Classifier:
        """The first method's; the one as given where there was nothing to repair."""
        return self.classifier_of(self.facts.kept.name)

    def classifier_of(self, name: str, *, arch: Named | None = None) -> Classifier:
        """The classifier of an arm.

        Args:
            arch: for a net that a file of the user's own made, read from a folder: that file's factory again. Nothing
                that only the folder names is run.

        Raises:
            DoorwardError: no such arm, one that the run does not keep, or one whose net cannot be made.
        """
        row = next((row for row in self.facts.arms if row.name == name), None)
        if row is None:
            names = ", ".join(row.name for row in self.facts.arms)
            raise DoorwardError(f"repair: no arm {name!r}; expected one of {names}")
        if self.folder is None:
            return next(arm.repaired.classifier for arm in self.arms if arm.planned.name == name)
        if row.folder is None:
            raise DoorwardError(f"{self.folder}: does not keep the classifier as it was given; expected a repaired one")
        return load_classifier(self.folder / row.folder, self.device, arch=arch)

    def rows(self) -> list[dict[str, Any]]:
        """One row per arm."""
        return [
            {
                "arm": arm.name,
                "role": arm.role,
                "accuracy": arm.accuracy.value,
                "variations_succeed": None if arm.proof is None else arm.proof.varied,
                "p": None if arm.proof is None else arm.proof.p_value,
                "triggers_succeed": None if arm.asr is None else arm.asr.value,
                "seconds": arm.seconds,
            }
            for arm in self.facts.arms
        ]

    def write(self, folder: Path) -> RepairRecord:
        """Write the classifiers, the first one into the folder itself, the others into ``arms/NAME/``."""
        for number, row in enumerate(self.facts.arms):
            if row.folder is not None and self.folder is not None:
                copy_arm(self.folder / row.folder, folder / row.folder, row.file)
            elif row.folder is not None:
                save_arm(self.arms[number].repaired.classifier, folder / row.folder)
        return self.facts

    @classmethod
    def read(cls, folder: Path, results: dict[str, Any]) -> Self:
        """From a run's folder."""
        return cls(parse(RepairRecord, results, folder / "run.json", "results"), folder=folder)
