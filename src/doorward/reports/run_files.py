"""Reads run folders into checked, typed values; whatever is missing, cut short or out of range is one clear line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from doorward.core.errors import DoorwardError
from doorward.core.files import read_json
from doorward.core.runs import Run
from doorward.core.tables import read_parquet
from doorward.reports.text import visible


def _finite(value: Any) -> Any:
    """None in place of NaN and infinity, which JSON should not hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RateValue(_Part):
    """A rate with its interval, as `doorward.core.stats.Rate.json` writes it."""

    value: Number
    low: float = Field(ge=0, le=1, allow_inf_nan=False)
    high: float = Field(ge=0, le=1, allow_inf_nan=False)
    hits: Count = 0
    trials: Count = 0
    confidence: float = Field(0.95, gt=0, lt=1)


class Images(_Part):
    """The images that were examined."""

    name: str
    sha256: str
    classes: tuple[str, ...] = Field(min_length=2)
    counts: tuple[Count, ...]
    shape: tuple[Count, Count, Count]


class ClassifierFacts(_Part):
    """The classifier whose features were used."""

    arch: str = "unknown"
    accuracy_on_images: RateValue | None = None


class Group(_Part):
    """One cluster of one class, as a method judged it."""

    label: Count
    cluster: int
    size: Count
    statistic: Number
    threshold: Number = None
    flagged: Count


class MethodResult(_Part):
    """What one method found, and what it was given to find it."""

    flagged: Count
    given: tuple[str, ...] = ()
    knowledge: tuple[str, ...] = ()
    settings: dict[str, Any] = {}
    seconds: Number = None
    warnings: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    class_scores: tuple[Number, ...] = ()


class ThumbnailRows(_Part):
    """Rows of ``thumbnails.npy`` by label, and by method and label."""

    typical: dict[Count, list[Count]] = {}
    suspects: dict[str, dict[Count, list[Count]]] = {}


class CleanseResults(_Part):
    """``results`` of a cleanse run."""

    images: Images
    classifier: ClassifierFacts = ClassifierFacts()
    methods: dict[str, MethodResult] = Field(min_length=1)
    thumbnails: ThumbnailRows = ThumbnailRows()


class AttackFacts(_Part):
    """The attack, known from the ground truth."""

    recipe: str
    description: str = ""
    poisoned: Count
    targets: tuple[int, ...] = ()


class MethodScore(_Part):
    """How well a method's flags fit the ground truth."""

    tpr: RateValue | None = None
    fpr: RateValue | None = None
    fpr_target: RateValue | None = None
    precision: RateValue | None = None
    auroc: Number = None


class ModelScore(_Part):
    """A classifier trained before or after the flagged images were removed."""

    name: str
    clean_accuracy: RateValue | None = None
    asr: RateValue | None = None


class Score(_Part):
    """``score.json``: everything that was computed with ground truth; ``attack`` is None for an unpoisoned control."""

    attack: AttackFacts | None = None
    methods: dict[str, MethodScore] = {}
    models: tuple[ModelScore, ...] = ()


class Manifest(_Part):
    """The part of ``run.json`` that every verb writes alike."""

    verb: str
    command: str = ""
    settings: dict[str, Any] = {}
    results: dict[str, Any] = {}
    versions: dict[str, str] = {}
    platform: str = ""
    seconds: Number = None


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], value: Any, path: Path, where: str = "") -> Model:
    """``value`` as ``model``; the first thing that does not fit becomes the one line of a `DoorwardError`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(filter(None, [where, *map(str, first["loc"])])) or "the file"
        message = visible(f"{place[:120]!r}: {first['msg']}")
        raise DoorwardError(f"{path}: {message}; expected a run of this version of doorward") from None


@dataclass(frozen=True)
class RunFolder:
    """A finished run: its folder and its manifest."""

    path: Path
    manifest: Manifest
    name: str

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the run in folder ``path``; it is called as the folder is, without the folders above."""
        return cls(path, parse(Manifest, Run.read(path), path / "run.json"), path.absolute().name)

    def results(self, model: type[Model]) -> Model:
        """The results, checked to be of the form ``model``."""
        return parse(model, self.manifest.results, self.path / "run.json", "results")

    def score(self) -> Score | None:
        """What was computed with ground truth, when it was."""
        path = self.path / "score.json"
        return parse(Score, read_json(path), path) if path.exists() else None


def told_apart(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """The runs under names that differ: ``a/run`` and ``b/run`` become ``a`` and ``b``."""
    parts = [run.path.absolute().parts for run in runs]
    for depth in range(1, min(map(len, parts))):
        names = [p[-depth] for p in parts]
        if len(set(names)) == len(set(parts)):
            return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]
    return list(runs)


@dataclass(frozen=True)
class Samples:
    """Per image, ``[N]`` each: index, label, and for every method a score (NaN when it gave none) and a flag."""

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    scores: dict[str, NDArray[np.float64]]
    flags: dict[str, NDArray[np.bool_]]


def read_samples(path: Path, methods: list[str], classes: int) -> Samples:
    """Read ``samples.parquet`` with the columns that ``methods`` wrote."""
    columns = read_parquet(path)
    wanted = ["index", "label", *(f"{m}_{part}" for m in methods for part in ("score", "flag"))]
    for column in wanted:
        if column not in columns:
            raise DoorwardError(f"{path}: has no column {column!r}; expected {', '.join(wanted)}"[:400])
    try:
        index, label = columns["index"].astype(np.int64), columns["label"].astype(np.int64)
        scores = {m: columns[f"{m}_score"].astype(np.float64) for m in methods}
        flags = {m: columns[f"{m}_flag"].astype(np.bool_) for m in methods}
    except (TypeError, ValueError) as error:
        raise DoorwardError(f"{path}: a column of the wrong type ({error}); expected numbers and flags") from None
    if len(label) and (label.min() < 0 or label.max() >= classes):
        raise DoorwardError(f"{path}: label {label.min()} to {label.max()}; expected 0 to {classes - 1}")
    return Samples(index, label, scores, flags)


def read_thumbnails(path: Path, highest_row: int) -> NDArray[np.uint8]:
    """Read ``thumbnails.npy``, uint8 ``[M, H, W, C]``, and check that it holds row ``highest_row``."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DoorwardError(f"{path}: cannot be read ({str(error).splitlines()[0]}); expected thumbnails") from None
    readable = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 4
    if not readable or pixels.shape[3] not in (1, 3) or 0 in pixels.shape[1:]:
        raise DoorwardError(f"{path}: not uint8 images [M, H, W, 1 or 3]; expected thumbnails written by doorward")
    if highest_row >= len(pixels):
        raise DoorwardError(f"{path}: holds {len(pixels)} images; expected row {highest_row} that run.json names")
    return pixels
