"""What `screen` returns, and its form on disk: one definition for writer, reader and report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.core.errors import DoorwardError
from doorward.core.results import ClassifierRecord, Count, ImagesRecord, Judged, Record, Result, parse
from doorward.core.tables import read_parquet, write_csv, write_parquet
from doorward.screens.verdict import judge


class WatchedRecord(ClassifierRecord):
    """The classifier that the images are meant for."""

    classes: tuple[str, ...]
    shape: tuple[Count, Count, Count]


class CleanRecord(Record):
    """The clean images that made the screen and set its threshold."""

    source: str = ""
    name: str
    sha256: str
    images: Count


class TriggersRecord(Record):
    """The triggers that were looked for: the run they are of, and their target classes."""

    run: str
    targets: tuple[Count, ...]


class ScreenRecord(Judged):
    """``results`` of a screen run.

    Args:
        false_rejection: share of clean images that the threshold lets be flagged.
        set_on: clean images that set the threshold.
        threshold: an image with a larger score is flagged.
        screened, flagged: how many images.
        images, clean, classifier, flagged_by_decision: None or empty where the screening was made in memory.
        flagged_by_decision: flagged images by the class that the classifier decides for.
    """

    method: str
    settings: dict[str, Any] = Field(default_factory=dict)
    false_rejection: float
    set_on: Count = 0
    threshold: float
    screened: Count
    flagged: Count
    images: ImagesRecord | None = None
    clean: CleanRecord | None = None
    classifier: WatchedRecord | None = None
    flagged_by_decision: tuple[Count, ...] = ()
    triggers: TriggersRecord | None = None
    given: tuple[str, ...] = ()
    knowledge: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    source: str = ""
    model: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Screening(Result):
    """What a screen says about some images.

    Args:
        scores: ``[N]``, higher is more suspicious.
        flags: bool ``[N]``, scores above the threshold.
        ids: a name for every image, where there is more than its number.
        labels, predicted: ``[N]``, labels of the images and what the classifier decides, where they are known.

    Raises:
        DoorwardError: columns of different lengths.
    """

    verb: ClassVar[str] = "screen"
    facts: ScreenRecord
    scores: NDArray[np.float64]
    flags: NDArray[np.bool_]
    ids: Sequence[str] | None = None
    labels: NDArray[np.int64] | None = None
    predicted: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        columns = (self.scores, self.flags, self.ids, self.labels, self.predicted)
        lengths = {self.facts.screened, *(len(column) for column in columns if column is not None)}
        if len(lengths) > 1:
            raise DoorwardError(f"screening: columns of lengths {sorted(lengths)}; expected one length")

    @classmethod
    def of(
        cls,
        scores: NDArray[np.float64],
        threshold: float,
        method: str,
        settings: dict[str, Any] | None = None,
        *,
        false_rejection: float,
        set_on: int,
    ) -> Self:
        """Flag scores above a threshold, and weigh their number."""
        flags = scores > threshold
        judgement, findings = judge(method, scores, flags, false_rejection, set_on)
        facts = ScreenRecord(
            judgement=judgement,
            findings=findings,
            method=method,
            settings=settings or {},
            false_rejection=false_rejection,
            set_on=set_on,
            threshold=threshold,
            screened=len(scores),
            flagged=int(flags.sum()),
        )
        return cls(facts, scores, flags)

    @property
    def record(self) -> ScreenRecord:
        """All plain values."""
        return self.facts

    def rows(self) -> list[dict[str, Any]]:
        """One row per image: its id or else its index, score, flag."""
        key, names = ("index", range(len(self.scores))) if self.ids is None else ("id", self.ids)
        rows = zip(names, self.scores.tolist(), self.flags.tolist(), strict=True)
        return [{key: name, "score": score, "flag": flag} for name, score, flag in rows]

    def write(self, folder: Path) -> ScreenRecord:
        """Write ``samples.parquet`` and ``flagged.csv``, worst first; returns the record."""
        columns: dict[str, NDArray[Any]] = {"index": np.arange(len(self.flags))}
        if self.ids is not None:
            columns["id"] = np.array(self.ids, dtype=object)
        known = {"label": self.labels, "predicted": self.predicted}
        columns |= {name: column for name, column in known.items() if column is not None}
        write_parquet(folder / "samples.parquet", columns | {"score": self.scores, "flag": self.flags})
        rows = [[name, decided, f"{score:.4f}"] for name, decided, score in self.flagged()]
        write_csv(folder / "flagged.csv", ["id", "decided as", "score"], rows)
        return self.facts

    def flagged(self) -> list[tuple[str, str, float]]:
        """Name or index, decision of the classifier where it is known, and score of flagged images; worst first."""
        rows = np.flatnonzero(self.flags)
        rows = rows[np.argsort(-self.scores[rows], kind="stable")]
        classes = () if self.facts.classifier is None else self.facts.classifier.classes
        made = []
        for row in rows.tolist():
            decided = "" if self.predicted is None or not classes else classes[int(self.predicted[row])]
            made.append((str(row) if self.ids is None else self.ids[row], decided, float(self.scores[row])))
        return made

    @classmethod
    def read(cls, folder: Path, results: dict[str, Any]) -> Self:
        """From a run's folder."""
        facts = parse(ScreenRecord, results, folder / "run.json", "results")
        if facts.classifier is not None and len(facts.flagged_by_decision) != len(facts.classifier.classes):
            told = f"{len(facts.flagged_by_decision)} counts by decision"
            raise DoorwardError(
                f"{folder / 'run.json'}: {told}; expected {len(facts.classifier.classes)}, one per class"
            )
        path = folder / "samples.parquet"
        columns = read_parquet(path)
        for name in ("score", "flag"):
            if name not in columns:
                raise DoorwardError(f"{path}: has no column {name!r}; expected index, score, flag")
        try:
            labels, predicted = (columns[k].astype(np.int64) if k in columns else None for k in ("label", "predicted"))
            scores, flags = columns["score"].astype(np.float64), columns["flag"].astype(np.bool_)
        except (TypeError, ValueError) as error:
            raise DoorwardError(f"{path}: a column of the wrong type ({error}); expected numbers and flags") from None
        ids = tuple(map(str, columns["id"])) if "id" in columns else None
        return cls(facts, scores, flags, ids, labels, predicted)
