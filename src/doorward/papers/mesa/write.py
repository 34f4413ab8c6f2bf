"""Writes the results: one Markdown page, Parquet files with every number, the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from doorward.core.errors import DoorwardError
from doorward.core.files import atomic_write
from doorward.papers.kept import with_kept
from doorward.papers.mesa import figures, tables
from doorward.papers.mesa.arms import BEFORE
from doorward.papers.mesa.collect import Found, collect
from doorward.papers.mesa.plan import PARTS, Plan
from doorward.papers.mesa.profiles import TABLE, deviations, published
from doorward.papers.rows import write_rows

_WHOLE = {"number", "rank", "lane", "named"}  # columns of whole numbers; *_hits and *_trials are too


def write_results(plan: Plan, folder: Path, results: Path) -> Path:
    """Write everything that the finished runs of a plan say into ``results``; returns the page.

    Triggers that the results have from earlier runs, and this plan has not, stay in the tables and figures.

    Raises:
        DoorwardError: no attack is finished, or the results were made with other settings.
    """
    found = collect(plan, folder)
    if not found.models:
        raise DoorwardError(f"{folder}: holds no finished attack of this plan; expected at least one")
    joined, _, commands = with_kept(plan, vars(found), results, ("case",), lambda row: str(row["case"]))
    found = Found(**joined)
    for name, rows in vars(found).items():
        if rows:
            write_rows(results / f"{name}.parquet", rows, _WHOLE)
    drawn = figures.draw(plan, found, folder, results)
    page = results / "README.md"
    atomic_write(page, _page(plan, found, drawn, commands))
    return page


def _page(plan: Plan, found: Found, drawn: Sequence[Path], commands: Sequence[str]) -> str:
    theirs = published(plan.source)
    parts: list[tuple[str, list[str]]] = [
        ("Black-and-white triggers", tables.summary(found, "black-white", theirs)),
        ("Random-colour triggers", tables.summary(found, "colour", theirs)),
        ("ASR % of every trigger", tables.each_trigger(found)),
        ("Without the crutches: unknown size, unknown target, fixed place", tables.without_crutches(found)),
        ("Unknown target", tables.verdicts(found, plan.target)),
        ("The searches", tables.searches(found)),
        ("Time", tables.times(found)),
    ]
    ratios = [line for line in (tables.ratio(found, kind, theirs) for kind in ("black-white", "colour")) if line]
    lines = ["# Defending backdoors by modelling the trigger distribution", "", page_intro(plan, found), ""]
    lines += [
        *(f"    {command}" for command in commands),
        "",
        *(f"* {line}" for line in [*ratios, _attack_line(found)]),
        "",
    ]
    for title, table in parts:
        if table:
            lines += [f"## {title}", "", *table]
    lines += [f"![{path.stem}]({path.name})" for path in drawn]
    lines += ["", "## Deviations from the authors' experiment", "", *(f"* {line}" for line in deviations(plan.profile))]
    return "\n".join([*lines, *_changed(plan), "", "## Settings", "", *_settings(plan), ""])


def page_intro(plan: Plan, found: Found) -> str:
    """What was measured on what, in one paragraph."""
    free = {r["case"] for r in found.models if r["place"] == "free"}
    split = f"{100 * (1 - plan.evaluated):g} % of the test images"
    trainings = len({r["accuracy_hits"] for r in found.models if r["arm"] == "clean"})
    several = f" They start from {trainings} trainings of the clean net, since machines round differently." * (
        trainings > 1
    )
    return (
        f"Qiao, Yang and Li, NeurIPS 2019. Source {plan.source}, net {plan.net}, target class {plan.target}, seed "
        f"{plan.seed}, {len(free)} triggers of 3 x 3 at random places, one attacked net each.{several} Every defence "
        f"has the net and {split} with their labels, and what the column 'told' says; all rates are measured on the "
        f"other {100 * plan.evaluated:g} %, ASR over the images that are not of the target class, the same images and "
        "places for all arms. Arms that retrain or fine-tune see the same images in the same order; unlearn, I-BAU and "
        "fine-pruning have the settings that `doorward repair` gives them. Rates in "
        "percent with 95 % Clopper-Pearson intervals over images, those of several triggers together, which leaves "
        "out how much trainings differ. The authors' figures are read off their poster. The "
        "trigger of the figures is the middle one of the list that was run last."
    )


def _attack_line(found: Found) -> str:
    rates = tables.by_case([r for r in found.models if r["arm"] == BEFORE])
    low = min(rates, key=lambda case: rates[case].value)
    return f"Before any repair the least successful of {len(rates)} attacks, {low}, has {rates[low]} % ASR."


def _changed(plan: Plan) -> list[str]:
    """Settings that are not the profile's."""
    profile = TABLE[plan.profile]
    lines = [
        f"* Set by the user: {name} = {getattr(plan, name)}."
        for name in ("source", "net")
        if getattr(plan, name) != getattr(profile, name)
    ]
    for part in PARTS:
        own, used = getattr(profile, part), getattr(plan, part)
        changed = {k: v for k, v in used.model_dump().items() if v != getattr(own, k)}
        lines += [f"* Set by the user: {part}.{k} = {v}." for k, v in changed.items()]
    return lines


def _settings(plan: Plan) -> list[str]:
    lines = [f"* attacker's probability of stamping: {plan.probability:g}, at most {plan.rounds} round(s)"]
    for part in PARTS:
        values = ", ".join(f"{k} = {v}" for k, v in getattr(plan, part).model_dump(mode="json").items())
        lines.append(f"* {part}: {values}")
    return lines
