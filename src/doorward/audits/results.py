"""What `audit` returns, and its form on disk: one definition for writer, reader, score and report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from doorward.audits.records import AuditRecord, mean_rate
from doorward.cleansers.results import Cleansing
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.files import write_array
from doorward.core.images import ImageSet
from doorward.core.results import Result, parse
from doorward.core.tables import read_parquet, write_csv, write_parquet
from doorward.core.triggers import Trigger, trigger_file
from doorward.inversion.results import Inversion
from doorward.models.files import save_classifier

MODEL = "model"  # the repaired model in the run's folder, itself a folder as 'doorward train' writes it
SHOWN = 6  # images a class that are shown with the trigger on them


@dataclass(frozen=True, eq=False)
class Table:
    """Per image of the training set, ``[N]``: label, decision of the suspect model, whether it is a suspect, score.

    Args:
        doubtful: images of accused classes that the experiment does not show to be poisoned; they are no suspects.
        score: one minus the probability of its label to nets trained without the suspects; 0 for others.
        evidence: what speaks against it: kinds, joined by ``+``; empty for images that are no suspects.
        ids: names.
    """

    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    suspect: NDArray[np.bool_]
    doubtful: NDArray[np.bool_]
    score: NDArray[np.float32]
    evidence: tuple[str, ...]
    ids: tuple[str, ...]

    def name(self, row: int) -> str:
        """What an image is called."""
        return self.ids[row]

    def write(self, folder: Path, classes: tuple[str, ...]) -> None:
        """``samples.parquet`` of all images, ``suspects.csv`` and, where there are any, ``doubtful.csv``."""
        columns = {"index": np.arange(len(self.label)), "id": np.array(self.ids, object), "label": self.label}
        columns |= {
            "predicted": self.predicted,
            "suspect": self.suspect,
            "doubtful": self.doubtful,
            "score": self.score,
        }
        write_parquet(folder / "samples.parquet", {**columns, "evidence": np.array(self.evidence, object)})
        for name, listed in (("suspects.csv", self.suspect), ("doubtful.csv", self.doubtful)):
            if listed.any() or listed is self.suspect:
                rows = [self._line(row, classes) for row in self.ranked(listed)]
                write_csv(folder / name, ["id", "class", "predicted", "evidence", "score"], rows)

    def ranked(self, listed: NDArray[np.bool_]) -> list[int]:
        """Which images those are, most certain first."""
        return [int(row) for row in np.flatnonzero(listed)[np.argsort(-self.score[listed], kind="stable")]]

    def _line(self, row: int, classes: tuple[str, ...]) -> list[str]:
        named = (classes[int(self.label[row])], classes[int(self.predicted[row])])
        return [self.ids[row], *named, self.evidence[row], f"{self.score[row]:.4f}"]

    @classmethod
    def read(cls, folder: Path) -> Table:
        """From ``samples.parquet``."""
        c = read_parquet(folder / "samples.parquet")
        names = ("label", "predicted", "suspect", "doubtful", "score")
        label, predicted, suspect, doubtful, score = (np.asarray(c[k]) for k in names)
        return cls(label, predicted, suspect, doubtful, score, tuple(map(str, c["evidence"])), tuple(map(str, c["id"])))


@dataclass(frozen=True, eq=False, repr=False)
class Audit(Result):
    """What `audit` gives: a verdict about a training set and its model, shown by experiment.

    Args:
        samples: per image; None where no training set was given.
        triggers: class to the trigger that was measured.
        cleansing, inversion: of the first round; None where the result was read from a folder.
        model: the suspect model. ``repaired``: see ``AuditRecord.handed_on``; None where nothing was found. Both None
            where the result was read from a folder; `doorward.load_model` reads the repaired one from ``model/``.
        pictures: ``[n, H, W, C]``, what ``thumbnails`` numbers.
    """

    verb: ClassVar[str] = "audit"
    facts: AuditRecord
    samples: Table | None = None
    triggers: Mapping[int, Trigger] = field(default_factory=dict)
    images: ImageSet | None = None
    model: Classifier | None = None
    repaired: Classifier | None = None
    cleansing: Cleansing | None = None
    inversion: Inversion | None = None
    pictures: NDArray[np.uint8] | None = None
    folder: Path | None = None

    @property
    def record(self) -> AuditRecord:
        """All plain values."""
        return self.facts

    def suspected(self, *, doubtful: bool = False) -> NDArray[np.bool_]:
        """Images ``[N]`` that are left out of the cleaned set; on request the doubtful ones as well.

        Raises:
            DoorwardError: no training set was audited.
        """
        if self.samples is None:
            raise DoorwardError("audit: a model alone was audited; expected a training set to have suspects")
        return self.samples.suspect | self.samples.doubtful if doubtful else self.samples.suspect

    def suspects(self) -> list[str]:
        """Names of the suspected images: ids, or indices where the images have no names."""
        return [] if self.samples is None else [self.samples.ids[i] for i in np.flatnonzero(self.suspected()).tolist()]

    def doubtful(self) -> list[str]:
        """Names of images that somebody should look at: of accused classes, and not shown to be poisoned."""
        return [] if self.samples is None else [self.samples.ids[i] for i in np.flatnonzero(self.samples.doubtful)]

    def cleaned(self, images: ImageSet | None = None, *, doubtful: bool = False) -> ImageSet:
        """The training set without the suspects.

        Args:
            images: the training set, needed of a result that was read from a folder.
            doubtful: whether to leave out the doubtful images as well.

        Raises:
            DoorwardError: no images, or others than were audited.
        """
        whole = images or self.images
        if whole is None:
            raise DoorwardError("this result was read from a folder; expected the training set as an argument")
        if images is not None and self.facts.images is not None and not self.facts.images.are(images.hashes):
            raise DoorwardError(f"{images.name}: other images than were audited; expected the same set")
        return whole.subset(~self.suspected(doubtful=doubtful), f"{whole.name}, cleaned")

    def rows(self) -> list[dict[str, Any]]:
        """One row per class that was looked into."""
        made = []
        for t in self.facts.targets_looked_into:
            row: dict[str, Any] = {"class": t.class_name, "level": t.level, "p_value": t.p_value}
            row |= {"suspects": t.suspects, "round": t.round, **{f"p {k}": p for k, p in t.evidence.items()}}
            if t.experiment is not None and t.experiment.control:
                row |= {"control": mean_rate(t.experiment.control), "without": mean_rate(t.experiment.without)}
            made.append(row)
        return made

    def write(self, folder: Path) -> AuditRecord:
        """Write the table, triggers, pictures and the repaired model; returns the record."""
        if self.samples is not None and self.facts.images is not None:
            self.samples.write(folder, self.facts.images.classes)
        for label, trigger in self.triggers.items():
            (folder / "triggers").mkdir(exist_ok=True)
            trigger.save(folder / trigger_file(label))
        if self.pictures is not None:
            write_array(folder / "thumbnails.npy", self.pictures)
        if self.repaired is not None:
            (folder / MODEL).mkdir(exist_ok=True)
            save_classifier(self.repaired, folder / MODEL)
        return self.facts

    @classmethod
    def read(cls, folder: Path, results: dict[str, Any]) -> Self:
        """From a run's folder."""
        facts = parse(AuditRecord, results, folder / "run.json", "results")
        samples = Table.read(folder) if (folder / "samples.parquet").is_file() else None
        wanted = {t.label for t in facts.targets_looked_into if t.trigger}
        triggers = {label: Trigger.load(folder / trigger_file(label)) for label in sorted(wanted)}
        return cls(facts, samples, triggers, folder=folder)
