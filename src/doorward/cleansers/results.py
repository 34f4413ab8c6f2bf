"""What `cleanse` returns, and its form on disk: one definition for writer, reader, score, repair and report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.cleansers.observe import Observations
from doorward.cleansers.pictures import pictures
from doorward.cleansers.samples import Samples, write_suspects
from doorward.cleansers.suspects import suspected_images
from doorward.cleansers.suspicion import Group, Suspicion
from doorward.core.errors import DoorwardError
from doorward.core.files import write_array
from doorward.core.images import ImageSet
from doorward.core.results import (
    FINDINGS,
    ClassifierRecord,
    Count,
    ImagesRecord,
    Judged,
    Number,
    Record,
    Result,
    parse,
)
from doorward.core.triggers import Trigger, trigger_file


class GroupRecord(Record):
    """One cluster of one class, as a method judged it (`Group`)."""

    label: Count
    cluster: int
    size: Count
    statistic: Number
    threshold: Number = None
    flagged: Count

    def group(self) -> Group:
        """As the method gave it."""
        statistic = float("nan") if self.statistic is None else self.statistic
        return Group(self.label, self.cluster, self.size, statistic, self.threshold, self.flagged)


class MethodRecord(Record):
    """What one method found, and what it was given to find it.

    Args:
        p_value: of the method's verdict over all classes; None when ``undecided`` says why there is none.
        class_p_values: per class, corrected for the number of classes; 1 where too few images are flagged to count.
    """

    flagged: Count
    given: tuple[str, ...] = ()
    knowledge: tuple[str, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    seconds: Number = None
    warnings: tuple[str, ...] = ()
    groups: tuple[GroupRecord, ...] = ()
    class_scores: tuple[Number, ...] = ()
    tested: tuple[Number, ...] | None = None
    p_value: Number = None
    class_p_values: tuple[Number, ...] = ()
    undecided: str = ""
    kind: str = ""


class ThumbnailRows(Record):
    """Rows of ``thumbnails.npy`` by label, and by method and label; others before and under a trigger by its label."""

    typical: dict[Count, list[Count]] = Field(default_factory=dict)
    suspects: dict[str, dict[Count, list[Count]]] = Field(default_factory=dict)
    before: dict[Count, list[Count]] = Field(default_factory=dict)
    after: dict[Count, list[Count]] = Field(default_factory=dict)


class CleanseRecord(Judged):
    """``results`` of a cleanse run."""

    images: ImagesRecord
    classifier: ClassifierRecord = ClassifierRecord()
    methods: dict[str, MethodRecord] = Field(min_length=1)
    thumbnails: ThumbnailRows = ThumbnailRows()
    triggers: dict[Count, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    source: str = ""
    model: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Cleansing(Result):
    """What `cleanse` gives: every method's suspicion on one training set, and one verdict.

    Args:
        images: the training set; None when the result was read from a folder.
        observations: features and logits that the methods looked at; not kept on disk.
        folder: that it was read from, whose thumbnails are copied when it is written again.
        triggers: by label, what the flagged images have in common, where a method says it (`transfer`).
    """

    verb: ClassVar[str] = "cleanse"
    facts: CleanseRecord
    samples: Samples
    images: ImageSet | None = None
    observations: Observations | None = None
    folder: Path | None = None
    triggers: Mapping[int, Trigger] = field(default_factory=dict)

    @property
    def record(self) -> CleanseRecord:
        """All plain values."""
        return self.facts

    @property
    def suspicions(self) -> Mapping[str, Suspicion]:
        """Score, flag, groups and warnings of every method."""
        return {name: self.suspicion(name) for name in self.facts.methods}

    def suspicion(self, name: str) -> Suspicion:
        """What one method says.

        Raises:
            DoorwardError: a method that did not run.
        """
        found = self._method(name)
        tested = None
        if found.tested is not None:
            tested = np.array([np.nan if v is None else v for v in found.tested])
        groups = tuple(g.group() for g in found.groups)
        return Suspicion(self.samples.scores[name], self.samples.flags[name], groups, found.warnings, tested)

    def _method(self, name: str) -> MethodRecord:
        if name not in self.facts.methods:
            raise DoorwardError(f"method {name!r} did not run; expected one of {', '.join(self.facts.methods)}")
        return self.facts.methods[name]

    def keep(self, name: str, images: ImageSet | None = None) -> ImageSet:
        """The training set without the images that a method flagged.

        Args:
            name: of the method.
            images: the training set, needed of a result that was read from a folder.

        Raises:
            DoorwardError: a method that did not run, or no images.
        """
        self._method(name)
        whole = self._whole(images)
        return whole.subset(~self.samples.flags[name], f"{whole.name} after {name}")

    def _whole(self, images: ImageSet | None) -> ImageSet:
        whole = images or self.images
        if whole is None:
            raise DoorwardError("this result was read from a folder; expected the training set as an argument")
        if images is not None and not self.facts.images.are(images.hashes):
            raise DoorwardError(f"{images.name}: other images than were cleansed; expected the same set")
        return whole

    def suspected(self) -> NDArray[np.bool_]:
        """Images ``[N]`` that methods flag in a class that they accuse; none unless there is a finding."""
        accusing: dict[int, list[str]] = {}
        for finding in self.facts.findings if self.verdict in FINDINGS else ():
            if finding.weighs and finding.label is not None:
                accusing.setdefault(finding.label, []).append(finding.method)
        kinds = {name: row.kind for name, row in self.facts.methods.items()}
        return suspected_images(self.samples.label, self.samples.flags, accusing, kinds)

    def suspects(self) -> list[str]:
        """Names of the suspected images: ids, or indices where the images have no names."""
        return [self.samples.name(row) for row in np.flatnonzero(self.suspected()).tolist()]

    def cleaned(self, images: ImageSet | None = None) -> ImageSet:
        """The training set without the suspects; the whole set where nothing is accused.

        Args:
            images: the training set, needed of a result that was read from a folder.

        Raises:
            DoorwardError: no images, or every one is suspected.
        """
        whole = self._whole(images)
        return whole.subset(~self.suspected(), f"{whole.name}, cleaned")

    def rows(self) -> list[dict[str, Any]]:
        """One row per method and class with flagged images, as `findings` has them."""
        names = ("method", "class_name", "flagged", "size", "agreement", "p_value", "level")
        rows = [{n: getattr(f, n) for n in names} for f in self.facts.findings]
        return [{"class" if k == "class_name" else k: v for k, v in row.items()} for row in rows]

    def write(self, folder: Path) -> CleanseRecord:
        """Write the table, the triggers and, where the images are at hand, ``thumbnails.npy``; returns the record."""
        self.samples.write(folder)
        for label, trigger in self.triggers.items():
            (folder / "triggers").mkdir(exist_ok=True)
            trigger.save(folder / trigger_file(label))
        write_suspects(self.samples, self.suspected(), self.facts.images.classes, folder / "suspects.csv")
        if self.images is None:
            kept = None if self.folder is None else self.folder / "thumbnails.npy"
            if kept is not None and kept.is_file():
                shutil.copyfile(kept, folder / "thumbnails.npy")
                return self.facts
            return self.facts.model_copy(update={"thumbnails": ThumbnailRows()})
        shown, rows = pictures(self.images, self.samples, self.triggers)
        write_array(folder / "thumbnails.npy", np.ascontiguousarray(shown))
        return self.facts.model_copy(update={"thumbnails": ThumbnailRows(**rows)})

    @classmethod
    def read(cls, folder: Path, results: dict[str, Any]) -> Self:
        """From a run's folder."""
        facts = parse(CleanseRecord, results, folder / "run.json", "results")
        check_labels(facts, folder / "run.json")
        samples = Samples.read(folder, list(facts.methods), len(facts.images.classes))
        triggers = {label: Trigger.load(folder / trigger_file(label)) for label in facts.triggers}
        return cls(facts, samples, folder=folder, triggers=triggers)


def check_labels(facts: CleanseRecord, path: Path) -> None:
    """Refuse labels that point past the class names."""
    classes = len(facts.images.classes)
    if len(facts.images.counts) != classes:
        raise DoorwardError(f"{path}: {len(facts.images.counts)} counts; expected {classes}, one per class")
    labels = [(m, g.label) for m, r in facts.methods.items() for g in r.groups]
    labels += [(f.method, f.label) for f in facts.findings if f.label is not None]
    for method, label in labels:
        if label >= classes:
            raise DoorwardError(f"{path}: {ascii(method)[:42]}: label {label}; expected labels below {classes}")
