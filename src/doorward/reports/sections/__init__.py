"""The sections of a page: one module per verb, found by its name.

A module ``sections/VERB.py`` holds ``build(run, thumbnail_bytes) -> Section`` and has a template of its own,
``templates/VERB.html``. Nothing else names it: `supported` lists the modules of this package.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field
from typing import Any, Literal

from doorward.core.errors import DoorwardError
from doorward.reports.run_files import RunFolder
from doorward.reports.text import name as shown_name

Level = Literal["evidence", "suspicious", "nothing", "repaired", "certificate"]
# From worst to best; what a page of several runs is ordered and counted by.
LEVELS: tuple[Level, ...] = ("evidence", "suspicious", "nothing", "repaired", "certificate")


@dataclass(frozen=True)
class Verdict:
    """What a run comes to, in words."""

    level: Level
    headline: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """One method's flags in one class; what SARIF and JSON list.

    ``agreement``: the largest share of images flagged by both, of those flagged by either, with another method.
    ``counted``: whether the verdict rests on it (not when the method was told how many images to flag).
    """

    method: str
    label: int
    class_name: str
    flagged: int
    size: int
    agreement: float
    counted: bool
    level: Level
    images: tuple[int, ...]  # indices, worst first, at most 100
    groups: tuple[dict[str, Any], ...] = ()

    @property
    def weighs(self) -> bool:
        """Whether it says anything: by itself, or because another method agrees."""
        return self.counted or self.level == "evidence"

    @property
    def sentence(self) -> str:
        """The finding in words."""
        return f"{self.method} flags {self.flagged:,} of {self.size:,} images of class “{shown_name(self.class_name)}”."


@dataclass(frozen=True)
class Check:
    """A method that ran: what was looked for, although nothing may have been found."""

    method: str
    summary: str
    flagged: int
    knowledge: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A cell of the overview: a text, a smaller second line, and whether it is agreed on or proven."""

    text: str
    note: str = ""
    tone: Literal["", "flagged", "proven"] = ""


@dataclass(frozen=True)
class Section:
    """One run on the page."""

    run: RunFolder
    subject: str
    verdict: Verdict
    template: str
    context: dict[str, Any]
    overview: dict[str, Cell]
    inputs: dict[str, str]  # hashes of what was examined
    findings: tuple[Finding, ...] = ()
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()
    details: dict[str, str] = field(default_factory=dict)


def supported() -> list[str]:
    """The verbs whose runs can be reported."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def build(run: RunFolder, thumbnail_bytes: int) -> Section:
    """The section of ``run``, its thumbnails within ``thumbnail_bytes``."""
    verbs = supported()
    if run.manifest.verb not in verbs:
        raise DoorwardError(
            f"{run.path}: was written by 'doorward {run.manifest.verb}'; expected a run of {' or '.join(verbs)}"
        )
    module = importlib.import_module(f"{__name__}.{run.manifest.verb}")
    section: Section = module.build(run, thumbnail_bytes)
    return section
