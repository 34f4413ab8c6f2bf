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
from doorward.core.results import Finding, Judgement, Level
from doorward.reports.run_files import RunFolder


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
class Suspect:
    """One image to leave out: what it is called, its row, class, decision and evidence, and how much is said of it."""

    id: str
    row: int
    named: bool
    label: int
    class_name: str
    predicted: str
    evidence: str
    score: float
    level: Level


@dataclass(frozen=True)
class Section:
    """One run on the page."""

    run: RunFolder
    subject: str
    verdict: Judgement
    template: str
    context: dict[str, Any]
    overview: dict[str, Cell]
    inputs: dict[str, str]  # hashes of what was examined
    findings: tuple[Finding, ...] = ()
    checks: tuple[Check, ...] = ()
    suspects: tuple[Suspect, ...] = ()  # most certain first, of runs that accuse single images
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
