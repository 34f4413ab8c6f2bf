"""Writes the results: one Markdown page, four Parquet files, the figures, and the report's page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from doorward.core.errors import DoorwardError
from doorward.core.files import atomic_write
from doorward.papers.cluster_impurity import figures, tables
from doorward.papers.cluster_impurity.collect import Found, collect
from doorward.papers.cluster_impurity.plan import SCENARIOS, Plan
from doorward.papers.cluster_impurity.trainers import CLEAN_ACCURACY, DEVIATIONS, TRAINERS
from doorward.papers.kept import with_kept
from doorward.papers.rows import Row, write_rows
from doorward.reports.page import report

_WHOLE = {"seed", "flagged", "poisoned", "gathered"}  # columns of whole numbers; *_hits and *_trials are too
_REPORTED = 24  # sections that the report's page has


def write_results(plan: Plan, folder: Path, results: Path) -> Path:
    """Write everything that the finished runs of a plan say into ``results``; returns the page.

    Cases that the results have from earlier runs, and this plan has not, stay in the tables and figures; the report's
    page, which needs the runs themselves, is then left as it is.

    Raises:
        DoorwardError: no case is finished, or the results were made with other settings.
    """
    found = collect(plan, folder)
    if not found.detections:
        raise DoorwardError(f"{folder}: holds no finished case of this plan; expected at least one")
    joined, kept, commands = with_kept(plan, vars(found), results, ("case", "seed"), _place)
    found = Found(**joined)
    for name, rows in vars(found).items():
        if rows:
            write_rows(results / f"{name}.parquet", rows, _WHOLE)
    drawn = figures.draw(found, results)
    shown = results / "report.html"
    if not (kept and shown.exists()):
        report(_reported(plan, folder), shown, title="Cluster impurity, one-pixel poison", overwrite=True)
    page = results / "README.md"
    atomic_write(page, _page(plan, found, drawn, commands))
    return page


def _place(row: Row) -> tuple[int, str, int]:
    """Of a row in the tables: the poster's cases first, the control last."""
    return SCENARIOS.index(row["scenario"]), row["case"], row["seed"]


def _reported(plan: Plan, folder: Path) -> list[Path]:
    """The blind detections of the first seed of every case, as many as the page has sections for."""
    scored: dict[str, Path] = {}
    for case in plan.cases:
        run = folder / case.folder / "cleanse-blind"
        if (run / "score.json").exists():
            scored.setdefault(case.name, run)
    return list(scored.values())[:_REPORTED]


def _page(plan: Plan, found: Found, drawn: Sequence[Path], commands: Sequence[str]) -> str:
    settings = ", ".join(f"{k} = {v}" for k, v in plan.training.model_dump(mode="json").items())
    parts: list[tuple[str, list[str]]] = [
        ("The poster's Table 2 and ours: (TPR, FPR), multiple-source", tables.against_the_poster(found)),
        ("Multiple-source and single-source, every form", tables.detection(found, "multiple-source", "single-source")),
        ("Attack success and accuracy, before and after", tables.classifiers(found)),
        ("No poison: what is flagged all the same", tables.control(found)),
        ("Beyond the poster, every form", tables.detection(found, "beyond")),
        ("Beyond the poster: where it stops working, and why", tables.beyond(found)),
        ("Time", tables.times(found)),
    ]
    lines = [
        "# Cluster impurity: the poster's benchmark",
        "",
        _intro(plan, found),
        "",
        *(f"    {c}" for c in commands),
        "",
    ]
    for title, table in parts:
        if len(table) > 3:  # a table without rows is a head, a rule and an empty line
            lines += [f"## {title}", "", *table]
    lines += [f"![{path.stem}]({path.name})" for path in drawn]
    lines += ["", "## Deviations", "", *(f"* {line}" for line in DEVIATIONS), "", f"Trainer: {settings}.", ""]
    return "\n".join(lines)


def _intro(plan: Plan, found: Found) -> str:
    trainings = sum(row["kind"] == "train" for row in found.times)
    seeds = sorted({row["seed"] for row in found.times})
    return (
        f"Source {plan.source}, net {plan.net}, trainer {_trainer(plan)}; trainings: {trainings}, seeds: "
        f"{', '.join(map(str, seeds))}. Rates in percent with 95 % Clopper-Pearson intervals over the images of all "
        "seeds together, which leaves out how much trainings differ; in brackets behind, the range over seeds. SS "
        "spectral signatures, AC activation clustering, CI cluster impurity, FP fine-pruning with "
        f"{100 * plan.clean_share:g} % of the clean training images. 'Told' is knowledge that an auditor does not "
        f"have in practice. The poster's clean accuracy is {100 * CLEAN_ACCURACY:.2f} %."
    )


def _trainer(plan: Plan) -> str:
    """Its name, and what the user set otherwise."""
    own, used = TRAINERS[plan.trainer].model_dump(), plan.training.model_dump()
    changed = [f"{name} = {value}" for name, value in used.items() if value != own[name]]
    return f"`{plan.trainer}`" + (f" with {', '.join(changed)}" if changed else "")
