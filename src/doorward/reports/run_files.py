"""Reads run folders into checked, typed values; whatever is missing, cut short or out of range is one clear line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.core.errors import DoorwardError
from doorward.core.leftovers import PARTIAL
from doorward.core.results import Number, Record, parse
from doorward.core.runs import Run
from doorward.scoring.results import ScoreRecord

R = TypeVar("R", bound=Record)


class Manifest(Record):
    """The part of ``run.json`` that every verb writes alike."""

    verb: str
    verdict: str | None = None
    command: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    results: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    platform: str = ""
    seconds: Number = None


@dataclass(frozen=True)
class RunFolder:
    """A finished run: its folder and its manifest."""

    path: Path
    manifest: Manifest
    name: str

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the run in folder ``path``; it is called as the folder is, or will be, without the folders above."""
        return cls(path, parse(Manifest, Run.read(path), path / "run.json"), path.absolute().name.removesuffix(PARTIAL))

    @property
    def final(self) -> Path:
        """The folder, under the name that it has when the run is complete."""
        return self.path.with_name(self.path.name.removesuffix(PARTIAL)) if self.path.name else self.path

    def results(self, model: type[R]) -> R:
        """The results, checked to be of the form ``model``."""
        return parse(model, self.manifest.results, self.path / "run.json", "results")

    def score(self) -> ScoreRecord | None:
        """What was computed with ground truth, when it was."""
        return ScoreRecord.read(self.path)


def told_apart(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """The runs under names that differ: ``a/run`` and ``b/run`` become ``a`` and ``b``.

    Where no folder of the way tells all of them apart, as in ``a/run``, ``b/run`` and ``b/other``, each has as much of
    its way as it needs: ``a/run``, ``b/run``, ``other``.
    """
    if len(runs) == 1:
        return list(runs)
    parts = [run.path.absolute().parts for run in runs]
    for depth in range(1, min(map(len, parts))):
        names = [p[-depth] for p in parts]
        if len(set(names)) == len(set(parts)):
            return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]
    return [replace(run, name=_shortest(own, parts)) for run, own in zip(runs, parts, strict=True)]


def _shortest(own: tuple[str, ...], parts: Sequence[tuple[str, ...]]) -> str:
    """The shortest end of a way that no other one has."""
    for depth in range(1, len(own)):
        if len({p for p in parts if p[-depth:] == own[-depth:]}) == 1:
            return "/".join(own[-depth:])
    return own[-1]


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
