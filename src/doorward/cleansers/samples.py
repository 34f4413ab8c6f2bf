"""What a cleansing says of every image, and what of it is for people: the suspects as a table, pictures to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError
from doorward.core.tables import read_parquet, write_csv, write_parquet

SHOWN = 24  # thumbnails of suspects, and of typical images, per class
Rows = dict[int, list[int]]  # rows of the thumbnails by class


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Per image, ``[N]`` each: index, label, decision, and for every method a score (NaN when none) and a flag.

    Args:
        ids: what the images are called; None where they have numbers alone.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    scores: dict[str, NDArray[np.float32]]
    flags: dict[str, NDArray[np.bool_]]
    ids: Sequence[str] | None = None

    def name(self, row: int) -> str:
        """What an image is called: its id, else its index."""
        return str(self.index[row]) if self.ids is None else self.ids[row]

    def write(self, folder: Path) -> None:
        """Write ``samples.parquet``."""
        columns: dict[str, NDArray[Any]] = {"index": self.index, "label": self.label, "predicted": self.predicted}
        if self.ids is not None:
            columns["id"] = np.array(list(self.ids), dtype=object)
        for name in self.scores:
            columns |= {f"{name}_score": self.scores[name], f"{name}_flag": self.flags[name]}
        write_parquet(folder / "samples.parquet", columns)

    @classmethod
    def read(cls, folder: Path, methods: list[str], classes: int) -> Samples:
        """Read ``samples.parquet`` with the columns of ``methods``, each label checked to be below ``classes``."""
        path = folder / "samples.parquet"
        columns = read_parquet(path)
        wanted = ["index", "label", "predicted", *(f"{m}_{part}" for m in methods for part in ("score", "flag"))]
        for column in wanted:
            if column not in columns:
                raise DoorwardError(f"{path}: has no column {column!r}; expected {', '.join(wanted)}"[:400])
        try:
            index, label, predicted = (columns[k].astype(np.int64) for k in wanted[:3])
            scores = {m: columns[f"{m}_score"].astype(np.float32) for m in methods}
            flags = {m: columns[f"{m}_flag"].astype(np.bool_) for m in methods}
        except (TypeError, ValueError) as error:
            raise DoorwardError(f"{path}: a column of the wrong type ({error}); expected numbers and flags") from None
        if len(label) and (label.min() < 0 or label.max() >= classes):
            raise DoorwardError(f"{path}: label {label.min()} to {label.max()}; expected 0 to {classes - 1}")
        ids = tuple(map(str, columns["id"])) if "id" in columns else None
        return cls(index, label, predicted, scores, flags, ids)


def write_suspects(samples: Samples, suspected: NDArray[np.bool_], classes: Sequence[str], path: Path) -> None:
    """Write ``suspects.csv``: id, class, predicted class, methods that flag the image, and every method's score."""
    rows = []
    for row in np.flatnonzero(suspected):
        methods = "+".join(name for name, flag in samples.flags.items() if flag[row])
        scores = [f"{score[row]:.6g}" for score in samples.scores.values()]
        names = (classes[int(samples.label[row])], classes[int(samples.predicted[row])])
        rows.append([samples.name(int(row)), *names, methods, *scores])
    write_csv(path, ["id", "class", "predicted", "methods", *(f"{name}_score" for name in samples.scores)], rows)


def pick_thumbnails(samples: Samples) -> tuple[Rows, dict[str, Rows], list[int]]:
    """Typical images of every class (unflagged, of median score), the worst suspects of flagged classes, all rows."""
    labels = samples.label
    rows: list[int] = []

    def put(chosen: NDArray[np.int64]) -> list[int]:
        first = len(rows)
        rows.extend(chosen.tolist())
        return list(range(first, len(rows)))

    suspects: dict[str, Rows] = {}
    flagged_by_any = np.zeros(len(labels), bool)
    for name, flag in samples.flags.items():
        score = samples.scores[name]
        flagged_by_any |= flag
        suspects[name] = {}
        for label in np.unique(labels[flag]):
            inside = np.flatnonzero(flag & (labels == label))
            suspects[name][int(label)] = put(inside[np.argsort(-score[inside], kind="stable")][:SHOWN])
    typical: Rows = {}
    ranks = np.sum([score.argsort().argsort() for score in samples.scores.values()], axis=0)
    for label in np.unique(labels):
        inside = np.flatnonzero((labels == label) & ~flagged_by_any)
        if len(inside):
            inside = inside[np.argsort(np.abs(ranks[inside] - np.median(ranks[inside])), kind="stable")]
        typical[int(label)] = put(inside[:SHOWN])
    return typical, suspects, rows
