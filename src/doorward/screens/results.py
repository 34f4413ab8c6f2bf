"""`Screening`: what a screen says about some images, in memory and on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError
from doorward.core.runs import Run
from doorward.core.tables import Columns, read_parquet, write_parquet

SCHEMA = 1  # of results["screening"] in run.json and of samples.parquet
LEVEL = 0.05  # of the verdict's test

Verdict = Literal["suspicious", "nothing found"]


@dataclass(frozen=True, eq=False, repr=False)
class Screening:
    """What a screen says about some images.

    Args:
        scores: ``[N]``, higher is more suspicious.
        threshold: an image with a larger score is flagged.
        flags: bool ``[N]``.
        method: name of the screen.
        settings: its settings, as plain values.
        false_rejection: share of clean images that the threshold lets be flagged.
        ids: a name for every image, where there is more than its number.

    Raises:
        DoorwardError: scores, flags and ids of different lengths.
    """

    scores: NDArray[np.float64]
    threshold: float
    flags: NDArray[np.bool_]
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    false_rejection: float = 0.05
    ids: Sequence[str] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.scores), len(self.flags), len(self.scores if self.ids is None else self.ids)}
        if len(lengths) > 1:
            raise DoorwardError(f"screening: columns of lengths {sorted(lengths)}; expected one length")

    @cached_property
    def p_value(self) -> float:
        """Chance of as many flags or more when every image is clean: one-sided exact binomial test.

        It takes the false rejection rate for the true one. The threshold is set on few clean images, so that the true
        rate varies about it: the fewer they are and the more images are screened, the more often clean images come
        out as suspicious than `LEVEL` says.
        """
        from scipy.stats import binomtest

        if not len(self.flags):
            return 1.0
        flagged = int(self.flags.sum())
        return float(binomtest(flagged, len(self.flags), self.false_rejection, alternative="greater").pvalue)

    @property
    def verdict(self) -> Verdict:
        """``suspicious`` when more images are flagged than the false rejection rate explains, at level 0.05."""
        return "suspicious" if self.p_value <= LEVEL else "nothing found"

    def table(self) -> list[dict[str, Any]]:
        """One row per image: its id or else its index, score, flag."""
        key, names = ("index", range(len(self.scores))) if self.ids is None else ("id", self.ids)
        rows = zip(names, self.scores.tolist(), self.flags.tolist(), strict=True)
        return [{key: name, "score": score, "flag": flag} for name, score, flag in rows]

    def __repr__(self) -> str:
        told = f"{int(self.flags.sum())} of {len(self.flags)} images flagged"
        return f"Screening({self.method}: {told}, p {self.p_value:.2g}, {self.verdict})"

    def json(self) -> dict[str, Any]:
        """All but the columns, as plain values."""
        return {
            "schema": SCHEMA,
            "method": self.method,
            "settings": self.settings,
            "false_rejection": self.false_rejection,
            "threshold": self.threshold,
            "images": len(self.flags),
            "flagged": int(self.flags.sum()),
            "verdict": self.verdict,
            "p_value": self.p_value,
        }

    def write(self, folder: Path, more: Columns | None = None) -> dict[str, Any]:
        """Write ``samples.parquet`` with further columns into a run that is being made; returns the part of its
        results that `load` reads."""
        columns: dict[str, NDArray[Any]] = {"index": np.arange(len(self.flags))}
        if self.ids is not None:
            columns["id"] = np.array(self.ids, dtype=object)
        columns |= {**(more or {}), "score": self.scores, "flag": self.flags}
        write_parquet(folder / "samples.parquet", columns)
        return {"screening": self.json()}

    def save(self, folder: Path | str, *, overwrite: bool = False) -> None:
        """Write a run folder of its own."""
        with Run(Path(folder), "screen", {"method": self.method, "settings": self.settings}, overwrite) as run:
            run.results = self.write(run.work)

    @classmethod
    def load(cls, folder: Path | str) -> Screening:
        """Read what `save` or ``doorward screen`` wrote."""
        folder = Path(folder)
        about = Run.read(folder, "screen")["results"]
        columns = read_parquet(folder / "samples.parquet")
        try:
            about = about["screening"]
            if about["schema"] != SCHEMA:
                raise DoorwardError(f"{folder}: a screening of schema {about['schema']!r}; expected {SCHEMA}")
            return cls(
                columns["score"].astype(np.float64), float(about["threshold"]), columns["flag"].astype(bool),
                str(about["method"]), dict(about["settings"]), float(about["false_rejection"]),
                tuple(map(str, columns["id"])) if "id" in columns else None,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise DoorwardError(f"{folder}: not a screening ({error!r}); expected one that doorward wrote") from None
