"""What `invert` returns, and its form on disk: one definition for writer, reader, repair, screen, report and papers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.files import write_array
from doorward.core.images import ImageSet
from doorward.core.results import (
    ClassifierRecord,
    Count,
    ImagesRecord,
    Judged,
    Level,
    Number,
    RateRecord,
    Record,
    Result,
    parse,
)
from doorward.core.tables import write_parquet
from doorward.core.triggers import Stamp
from doorward.inversion.files import class_columns, copy_run, kept_stamps, load_stamps, pictures, save_triggers
from doorward.inversion.search.runner import Outcome


class ClassRow(Record):
    """One class, as one method sees it.

    Args:
        reference: mean statistic of the clean references, which the test subtracts.
        asr: success of the trigger on held-out images of other classes.
        stands_out: whether the method's own p-value is at or below the level.
    """

    label: Count
    statistic: Number = None
    p_value: Number = None
    reference: Number = None
    size: Number = None
    asr: RateRecord | None = None
    converged: bool
    works: bool
    ran_out: bool
    stands_out: bool = False


class MethodRecord(Record):
    """What one method found, and what it was given to find it.

    Args:
        p_value: over all classes; None when ``undecided`` says why there is none.
        meaning: what the statistic is, in words.
        triggers: files in ``triggers/`` by class.
    """

    p_value: Number = None
    undecided: str = ""
    meaning: str = ""
    given: tuple[str, ...] = ()
    knowledge: tuple[str, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    seconds: Number = None
    warnings: tuple[str, ...] = ()
    details: dict[str, Any] = Field(default_factory=dict)
    triggers: dict[Count, tuple[str, ...]] = Field(default_factory=dict)
    classes: tuple[ClassRow, ...] = Field(min_length=2)


class Target(Record):
    """A class that stands out, with the trigger of the method that is surest of it and has one.

    Args:
        file: of that trigger in the run's folder; empty without one.
        carried: success of that trigger on the references, all together.
        natural: p-value that it is one that the class has by nature (`doorward.inversion.judge.natural`); None where
            that is not known.
    """

    class_name: str
    label: Count
    p_value: Number
    asr: RateRecord | None = None
    carried: RateRecord | None = None
    natural: Number = None
    size: Number = None
    method: str
    file: str = ""


class ClassVerdict(Record):
    """A class and its p-value over all methods."""

    class_name: str
    label: Count
    p_value: Number = None


class ThumbnailRows(Record):
    """Rows of ``thumbnails.npy``: clean images, and the same ones by method and class of the trigger on them."""

    clean: tuple[Count, ...] = ()
    stamped: dict[str, dict[Count, tuple[Count, ...]]] = Field(default_factory=dict)


class RoundRecord(Record):
    """One look of several.

    Args:
        hidden_pixels: that the net could not see.
        excluded: classes that were left out.
        folder, methods: of later rounds; those of the first are the run's own.
    """

    verdict: Level
    p_value: Number = None
    targets: tuple[Target, ...] = ()
    hidden_pixels: Count = 0
    excluded: tuple[Count, ...] = ()
    folder: str = ""
    methods: dict[str, MethodRecord] = Field(default_factory=dict)


class SuspectRecord(ClassifierRecord):
    """The classifier under suspicion, with its conventions."""

    classes: Count
    shape: tuple[Count, Count, Count]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class InvertRecord(Judged):
    """``results`` of an invert run.

    Args:
        level: the verdict's chance of a false alarm on a clean classifier.
        targets: of all rounds, most suspicious first.
    """

    level: float = Field(gt=0, lt=1)
    targets: tuple[Target, ...] = ()
    classes: tuple[ClassVerdict, ...] = Field(min_length=2)
    images: ImagesRecord | None = None
    classifier: SuspectRecord
    methods: dict[str, MethodRecord] = Field(min_length=1)
    thumbnails: ThumbnailRows | None = None
    rounds: tuple[RoundRecord, ...] = ()
    source: str | None = None
    model: str = ""
    references: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Inversion(Result):
    """What `invert` gives: for each class what every method found, and one verdict.

    Args:
        outcomes: of every method, with triggers and tests; empty when the result was read from a folder.
        classifier, images: that were looked at; None when the result was read from a folder.
        later: further rounds, each with what was found before hidden from it (`invert_repeatedly`).
        folder: of the run that it was read from, where its triggers are.
        seed: decides which images are shown under the triggers.
    """

    verb: ClassVar[str] = "invert"
    facts: InvertRecord
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    classifier: Classifier | None = None
    images: ImageSet | None = None
    later: tuple[Inversion, ...] = ()
    folder: Path | None = None
    seed: int = 0

    @property
    def record(self) -> InvertRecord:
        """All plain values."""
        return self.facts

    @property
    def target_labels(self) -> tuple[int, ...]:
        """Numbers of the accused classes, most suspicious first."""
        return tuple(t.label for t in self.facts.targets)

    @property
    def class_p_values(self) -> NDArray[np.float64]:
        """Per class ``[K]``, corrected for classes and methods; NaN when undecided."""
        return np.array([np.nan if c.p_value is None else c.p_value for c in self.facts.classes])

    def stamps(self, method: str, label: int, number: int = 1) -> list[Stamp]:
        """The triggers of one class by one method, the best first; a distribution of all of them stands alone.

        Args:
            number: of the round.
        """
        if number > 1 and self.later:
            return self.later[number - 2].stamps(method, label)
        if self.folder is None:
            return kept_stamps(self.outcomes[method].inverted, label)
        inside = self.facts.rounds[number - 1].folder if number > 1 else ""
        return load_stamps(self.folder / Path(inside).name, method, label)

    def rows(self) -> list[dict[str, Any]]:
        """One row per class: its p-value; statistic, success and size of every method."""
        rows = []
        for c in self.facts.classes:
            row: dict[str, Any] = {"class": c.class_name, "p_value": c.p_value}
            for name, found in self.facts.methods.items():
                mine = found.classes[c.label]
                asr = None if mine.asr is None else mine.asr.value
                row |= {f"{name}_statistic": mine.statistic, f"{name}_success": asr, f"{name}_size": mine.size}
            rows.append(row)
        return rows

    def write(self, folder: Path) -> InvertRecord:
        """Write ``triggers/``, ``classes.parquet``, ``thumbnails.npy`` with images at hand, and later rounds in
        ``round-2/`` and so on; returns the record."""
        if self.folder is not None:
            copy_run(self.folder, folder, [r.folder for r in self.facts.rounds if r.folder])
            return self.facts
        save_triggers(self.outcomes, folder / "triggers")
        write_parquet(folder / "classes.parquet", class_columns(self.outcomes, self.class_p_values))
        if self.images is not None:
            write_array(folder / "thumbnails.npy", pictures(self.outcomes, self.images, self.seed))
        for number, found in enumerate(self.later, 2):
            (folder / f"round-{number}").mkdir(exist_ok=True)
            found.write(folder / f"round-{number}")
        return self.facts

    @classmethod
    def read(cls, folder: Path, results: dict[str, Any]) -> Self:
        """From a run's folder."""
        facts = parse(InvertRecord, results, folder / "run.json", "results")
        check_labels(facts, folder / "run.json")
        return cls(facts, folder=folder)


def check_labels(facts: InvertRecord, path: Path) -> None:
    """Refuse classes that are not those of the list."""
    order = list(range(len(facts.classes)))
    methods = [*facts.methods.values(), *(m for r in facts.rounds for m in r.methods.values())]
    listed = [[c.label for c in facts.classes], *([c.label for c in m.classes] for m in methods)]
    targets = [*facts.targets, *(t for r in facts.rounds for t in r.targets)]
    if any(labels != order for labels in listed) or any(t.label not in order for t in targets):
        raise DoorwardError(f"{path}: classes out of order; expected 0 to {order[-1]} for all methods")
