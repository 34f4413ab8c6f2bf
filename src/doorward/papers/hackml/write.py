"""Writes the results: one Markdown page, Parquet files with every number, the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from doorward.core.errors import DoorwardError
from doorward.core.files import atomic_write
from doorward.papers.hackml import figures, tables
from doorward.papers.hackml.collect import Found, collect
from doorward.papers.hackml.faces import ORL_CREDIT
from doorward.papers.hackml.plan import Plan
from doorward.papers.rows import write_rows

_WHOLE = {"classes", "passes", "exhaustive", "label", "true", "rank", "p_rank", "target", "pixels", "true_pixels"}

DEVIATIONS = (
    "Nets: DeepID with 40 people, trained here on seven pictures of each; the contest's know 1,284 people with ten.",
    "Faces: grey pictures of the ORL database, cropped and repeated over three channels; the given net has never seen "
    "these people, so that its own decisions take the place of labels.",
    "The slides' random 15 x 15 window is an option of step 1; the tables are made with a search over the whole image "
    "in cells of four pixels, and a size that every class is compared in.",
    "Heat: correlation of the windows' strength with their covering a pixel, where the slides add strength up. "
    "Strength is the class's margin above that of control classes at the same place.",
    "The defence's clean faces are those that the attacker made stamped copies of; all rates are of other pictures.",
    "The given net is not repaired, because none of its people's pictures are at hand.",
    "Settings were chosen on own nets of seed 0 and on the given net, all with another division of the faces: of the "
    "given net only the faces are new here.",
)


def write_results(plan: Plan, folder: Path, results: Path) -> Path:
    """Write everything that the finished runs of a plan say into ``results``; returns the page.

    Raises:
        DoorwardError: no scan is finished.
    """
    found = collect(plan, folder)
    if not found.scans:
        raise DoorwardError(f"{folder}: holds no finished scan of this plan; expected at least one")
    results.mkdir(parents=True, exist_ok=True)
    for name, rows in vars(found).items():
        if rows:
            write_rows(results / f"{name}.parquet", rows, _WHOLE)
    drawn = figures.draw(plan, folder, results)
    page = results / "README.md"
    atomic_write(page, _page(plan, found, drawn))
    return page


def _page(plan: Plan, found: Found, drawn: Sequence[Path]) -> str:
    parts = [
        ("Verdict of every net", tables.scans(found)),
        ("Suspects: true (bold) and natural backdoors together", tables.suspects(found)),
        ("Where the triggers lie", tables.places(found)),
        ("The attacks before any defence", tables.attacks(found)),
        ("Repair", tables.repairs(found)),
        ("Guard: K + 1 outputs, the last one means stamped", tables.guards(found)),
        ("Screens of single images, threshold for 5 % of clean faces", tables.screens(found)),
        ("Time", tables.times(found)),
    ]
    faces = ORL_CREDIT if plan.faces is not None else "drawn ones, since no file of the ORL faces was given"
    lines = ["# Realistic defence: faces, any shape, fixed place, natural backdoors", ""]
    lines += [
        "Qiao, Yang and Li, NeurIPS 2019, slides on CSAW HackML 2019. "
        f"Faces: {faces}. Seed {plan.seed}; the defence has {_nets(plan.references)} trained on its own faces, and is "
        "told nothing about the attack. All rates are of faces that no search and no repair saw, in percent with "
        "95 % Clopper-Pearson intervals; ASR over the faces that are not of the target class.",
        "",
        f"    {plan.command}",
        "",
    ]
    for title, table in parts:
        if table:
            lines += [f"## {title}", "", *table]
    lines += [f"![{path.stem}]({path.name})\n" for path in drawn]
    return "\n".join([*lines, "## Deviations and conditions", "", *(f"* {line}" for line in DEVIATIONS), ""])


def _nets(number: int) -> str:
    return "one clean net" if number == 1 else f"{number} clean nets"
