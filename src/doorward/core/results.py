"""What verbs return: records of plain values, findings, one verdict; the same in memory, on disk and in a report.

A record is written into ``run.json`` and read from it by the same class, so that nobody guesses at keys.
"""

from __future__ import annotations

import html
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.runs import Run
from doorward.core.stats import Rate

Level = Literal[
    "planted", "evidence", "suspicious", "not repaired", "undecided", "nothing found", "repaired", "certificate"
]
# From worst to best; what a page of several runs is ordered and counted by.
LEVELS: tuple[Level, ...] = (
    "planted", "evidence", "suspicious", "not repaired", "undecided", "nothing found", "repaired", "certificate"
)  # fmt: skip
FINDINGS: frozenset[Level] = frozenset({"planted", "evidence", "suspicious", "not repaired"})
MOST_IMAGES = 100  # that one finding names; as many as SARIF viewers take
_SHOWN_ROWS = 12


def _finite(value: Any) -> Any:
    """None in place of NaN and infinity, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
Count = Annotated[int, Field(ge=0)]


def plain(value: Any) -> Any:
    """A value as JSON gives it back: text for keys, lists, None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Record(BaseModel):
    """Base of everything in ``run.json``: immutable, checked, without surprises from unknown keys."""

    model_config = ConfigDict(frozen=True, extra="ignore")


R = TypeVar("R", bound=Record)


def parse(kind: type[R], value: Any, path: Path, where: str = "") -> R:
    """``value`` as a record; the first thing that does not fit becomes one line about ``path``."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(filter(None, [where, *map(str, first["loc"])])) or "the file"
        told = f"{place[:120]!a}: {first['msg']}"
        raise DoorwardError(f"{path}: {told}; expected a run of this version of doorward") from None


def read_record(kind: type[R], folder: Path | str, verb: str | None = None) -> R:
    """The results of a finished run as a record; ``verb``: of that one alone."""
    path = Path(folder)
    return parse(kind, Run.read(path, verb)["results"], path / "run.json", "results")


class RateRecord(Record):
    """A rate with its interval, as `Rate.json` writes it."""

    value: Number
    low: float = Field(ge=0, le=1, allow_inf_nan=False)
    high: float = Field(ge=0, le=1, allow_inf_nan=False)
    hits: Count = 0
    trials: Count = 0
    confidence: float = Field(0.95, gt=0, lt=1)

    @classmethod
    def of(cls, rate: Rate) -> RateRecord:
        """The record of a rate."""
        return cls.model_validate(rate.json())

    def rate(self) -> Rate:
        """The rate again."""
        return Rate(self.hits, self.trials, self.confidence)


class ImagesRecord(Record):
    """The images that were looked at."""

    name: str
    sha256: str
    classes: tuple[str, ...] = Field(min_length=1)
    counts: tuple[Count, ...]
    shape: tuple[Count, Count, Count]
    origin_sha256: str = ""

    @classmethod
    def of(cls, images: ImageSet) -> ImagesRecord:
        """The facts of a set; hashes all of it."""
        counts, origin = tuple(images.counts().tolist()), "" if images.origin == images.hash else images.origin
        return cls(
            name=images.name,
            sha256=images.hash,
            classes=images.classes,
            counts=counts,
            shape=images.shape,
            origin_sha256=origin,
        )

    def are(self, hashes: Collection[str]) -> bool:
        """Whether these are the images of one of the hashes, before or after they were fitted to a model."""
        return self.sha256 in hashes or self.origin_sha256 in hashes


class ClassifierRecord(Record):
    """The classifier that was used."""

    arch: str = "unknown"
    accuracy_on_images: RateRecord | None = None


class Finding(Record):
    """One thing that a method found; what SARIF and JSON list.

    Args:
        method: that found it.
        label, class_name: the class it is in or leads to; None when it is about no class.
        level: what it comes to by itself and with what agrees with it; ``nothing found`` for what only the table shows.
        sentence: in words.
        p_value: of the class by this method, corrected for classes and methods; None without a test.
        flagged, size: images flagged, of so many.
        agreement: the largest share of images flagged by both, of those flagged by either, with a method of another
            kind.
        counted: whether a verdict may rest on it (not when the method was told how many images to flag).
        images, ids: indices of the worst, at most 100, and what they are called; no ids where they have no names.
        file: what it is about in the run's folder, where it is about no images.
    """

    method: str
    label: Count | None = None
    class_name: str = ""
    level: Level
    sentence: str
    p_value: Number = None
    flagged: Count = 0
    size: Count = 0
    agreement: float = 0.0
    counted: bool = True
    images: tuple[Count, ...] = Field((), max_length=MOST_IMAGES)
    ids: tuple[str, ...] = Field((), max_length=MOST_IMAGES)
    file: str = ""

    @property
    def weighs(self) -> bool:
        """Whether it says anything beyond the table."""
        return self.level in FINDINGS


class Judgement(Record):
    """The verdict of a run, decided once, with its reasons.

    Args:
        level: the verdict.
        p_value: of the whole run, corrected for all classes and methods; None without a test.
        targets: names of the classes it accuses, most suspicious first.
        headline: in one line.
        reasons: sentences.
    """

    level: Level
    p_value: Number = None
    targets: tuple[str, ...] = ()
    headline: str
    reasons: tuple[str, ...] = ()


class Judged(Record):
    """Base of the results of every verb that comes to a verdict."""

    judgement: Judgement
    findings: tuple[Finding, ...] = ()


class Result(ABC):
    """Base of what verbs return: a record, and whatever arrays it comes with."""

    verb: ClassVar[str]

    @property
    @abstractmethod
    def record(self) -> Judged:
        """All plain values, as they stand in ``run.json``."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """The table, a dictionary a row."""

    @abstractmethod
    def write(self, folder: Path) -> Judged:
        """Write the arrays into a run's folder; returns the record for its ``run.json``."""

    @classmethod
    @abstractmethod
    def read(cls, folder: Path, results: dict[str, Any]) -> Self:
        """The result of a finished run from its folder and the ``results`` of its ``run.json``."""

    @property
    def verdict(self) -> Level:
        """The level of the judgement, such as ``evidence`` or ``nothing found``; see `Level`."""
        return self.record.judgement.level

    @property
    def p_value(self) -> float | None:
        """Of the whole verdict, corrected for classes and methods; None where there is no test."""
        return self.record.judgement.p_value

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the accused classes, most suspicious first."""
        return self.record.judgement.targets

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What every method found."""
        return self.record.findings

    def table(self) -> Any:
        """The rows as a pandas DataFrame where pandas is installed, else as a list of dictionaries."""
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            return self.rows()
        return pandas.DataFrame(self.rows())

    def save(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write a run folder, as the command does, that `load` and ``doorward report`` read.

        Raises:
            DoorwardError: the folder exists (unless ``overwrite``), or cannot be written.
        """
        with Run(Path(folder), self.verb, {}, overwrite, fresh=True) as run:
            run.keep(self.write(run.work))
        return Path(folder)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read a finished run of this verb, saved from Python or written by the command."""
        path = Path(folder)
        return cls.read(path, Run.read(path, cls.verb)["results"])

    def report(self, path: Path | str, *, overwrite: bool = False) -> Path:
        """Write an HTML page about it (see `doorward.report`)."""
        import doorward  # the public door: results stand below the pages that show them

        return doorward.report(self, path, overwrite=overwrite)

    def __repr__(self) -> str:
        judgement = self.record.judgement
        p = "" if judgement.p_value is None else f", p = {judgement.p_value:.2g}"
        return "\n".join([f"<{type(self).__name__}: {judgement.headline}{p}>", *judgement.reasons[:4]])

    def _repr_html_(self) -> str:
        judgement, rows = self.record.judgement, self.rows()
        p = "" if judgement.p_value is None else f" (p = {judgement.p_value:.2g})"
        told = "".join(f"<li>{html.escape(reason)}</li>" for reason in judgement.reasons)
        more = f"<p>{len(rows) - _SHOWN_ROWS} more rows</p>" if len(rows) > _SHOWN_ROWS else ""
        return f"<p><b>{html.escape(judgement.headline)}</b>{p}</p><ul>{told}</ul>{_html(rows[:_SHOWN_ROWS])}{more}"


def _html(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as an HTML table; every cell escaped."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(row.get(name)))}</td>" for name in columns) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
