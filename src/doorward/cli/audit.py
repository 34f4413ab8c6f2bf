"""``doorward audit``: the main command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doorward.cli import common, models
from doorward.core.errors import DoorwardError

if TYPE_CHECKING:
    from doorward.audits.records import AuditRecord
    from doorward.audits.results import Audit

_FAILS = ("planted", "evidence", "suspicious")
PAGE, FINDINGS = "report.html", "audit.sarif"  # in the run's folder

_Source = Annotated[
    str | None,
    typer.Argument(
        metavar="[SOURCE]", help="The training set: a named set, a folder, a file; left out for a model alone."
    ),
]
_Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="The model that was trained on it: a folder, or a file of weights with --arch; else one is trained.",
        rich_help_panel=common.MODEL,
    ),
]
_Net = Annotated[
    str | None,
    typer.Option(
        help=f"What is trained where there is no --model: {models.FORMS}. Default small-cnn.",
        rich_help_panel=common.MODEL,
    ),
]
_Clean = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="Images known to be clean, with their labels; needed for a model alone.",
        rich_help_panel=common.PICTURES,
    ),
]
_Minutes = Annotated[
    float | None,
    typer.Option(metavar="N", help="Keep to about N minutes; what is left out is told.", rich_help_panel=common.RUN),
]
_FailOn = Annotated[
    str,
    typer.Option(
        metavar="LEVEL",
        help="End with exit code 1 from this verdict on: planted, evidence or suspicious.",
        rich_help_panel=common.RUN,
    ),
]
_Power = Annotated[
    bool,
    typer.Option(
        "--power",
        help="Say how few poisoned images would have been found: a known trigger is planted into copies of the set, "
        "which takes two to four audits more.",
        rich_help_panel=common.RUN,
    ),
]
_Level = Annotated[
    float, typer.Option(help="Chance of a verdict against a set without poison.", rich_help_panel=common.RUN)
]


@models.takes_model
def audit_command(
    output: common.Output,
    source: _Source = None,
    model: _Model = None,
    clean: _Clean = None,
    minutes: _Minutes = None,
    net: _Net = None,
    level: _Level = 0.05,
    fail_on: _FailOn = "suspicious",
    seed: common.Seed = 0,
    *,
    power: _Power = False,
    dry_run: common.DryRun = False,
    overwrite: common.Overwrite = False,
    as_json: common.AsJson = False,
    **opening: Any,
) -> None:
    """Audit a training set and its model for a backdoor: one verdict, shown by an experiment.

    Finds suspects and triggers, then trains again without the suspects and, to compare, without as many random images
    of their class. Given a set alone it trains a model; given --model and --clean alone it audits the model.
    The folder holds the page (report.html), suspects.csv, triggers/, audit.json, audit.sarif, and model/, trained
    without the suspects.

    Ends with exit code 1 for a verdict of --fail-on or worse, 3 when nothing can be decided, else 0.

    Example: doorward audit photos/ --model weights.pth --arch mine.py:make_net --size 96 -o audit/
    Example: doorward audit photos/ --size 96 --minutes 20 -o audit/
    Example: doorward audit --model model/ --clean mnist-5k -o audit/
    """
    from doorward.audits.job import AuditRequest, audit_to_folder, plan_to_audit
    from doorward.audits.summary import summary
    from doorward.core.settings import build_settings

    if fail_on not in _FAILS:
        raise DoorwardError(f"--fail-on {fail_on!r}; expected {', '.join(_FAILS[:-1])} or {_FAILS[-1]}")
    asked = {
        **models.as_request("" if model is None else model, opening),
        "source": source,
        "clean": clean,
        "minutes": minutes,
        "level": level,
        "net": net,
        "power": power,
        "seed": seed,
    }
    request = build_settings(AuditRequest, "audit", asked, options=True)
    if dry_run:
        common.show_plan(plan_to_audit(request), as_json)
    with common.display("audit") as progress:
        found = audit_to_folder(
            request,
            output,
            overwrite=overwrite,
            command=common.command_line(),
            progress=progress,
            page=lambda work: _write_page(output.with_name(work.name) if output.name else work),
        )
    if as_json:
        common.print_json(summary(found.facts))
    else:
        _show(found, output)
    raise typer.Exit(exit_code(found.verdict, fail_on))


def exit_code(verdict: str, fail_on: str) -> int:
    """1 for a verdict of that level or worse, 3 where nothing was decided, else 0."""
    if verdict in _FAILS:
        worse = _FAILS.index(verdict) <= _FAILS.index(fail_on)
        return common.FOUND_SOMETHING if worse else common.FOUND_NOTHING
    return common.UNDECIDED if verdict == "undecided" else common.FOUND_NOTHING


def _write_page(folder: Path) -> None:
    """Page and SARIF beside the results: reports stand above audits, so that the job cannot write them."""
    from doorward.core.files import atomic_write, write_json
    from doorward.reports.page import compose
    from doorward.reports.sarif import sarif

    page = compose(folder)
    atomic_write(folder / PAGE, page.html)
    write_json(folder / FINDINGS, sarif(page.sections))


def _show(found: Audit, output: Path) -> None:
    from doorward.audits.summary import power_sentence
    from doorward.core.text import plural

    record = found.facts
    rows = _rows(record)
    if rows:
        columns = ["class", "verdict", "p", "suspects", "trigger works", "without suspects", "without others"]
        common.print_table("Classes that were looked into", columns, rows)
    common.show_notes(record.warnings)
    common.show_verdict(record.judgement)
    if record.power is not None:
        _say(power_sentence(record.power))
    place, quoted = str(output), shlex.quote(str(output))
    if record.suspects:
        _say(f"{record.suspects:,} suspects by name: {Path(place) / 'suspects.csv'}")
    if record.doubtful:
        _say(f"{plural(record.doubtful, 'image')} to look at, by name: {Path(place) / 'doubtful.csv'}")
    if found.repaired is not None:
        which = (
            "a model trained without them"
            if record.handed_on == "anew"
            else "a copy of the model, trained on without them"
        )
        _say(f"{which}: {Path(place) / 'model'}")
    _say(f"the page: {Path(place) / PAGE}")
    if record.suspects:
        kept = f"{Path(record.source).name or 'set'}-clean"
        _say(f"next, the set without them: doorward export {quoted} --keep -o {shlex.quote(kept)}")


def _rows(record: AuditRecord) -> list[list[str]]:
    from doorward.audits.records import ArmsRecord, mean_rate
    from doorward.core.text import percent

    rows = []
    for t in record.targets_looked_into:
        arms = ArmsRecord(size=0) if t.experiment is None else t.experiment
        rates = [percent(rate) for rate in (t.success, mean_rate(arms.without), mean_rate(arms.control))]
        rows.append([t.class_name, t.level, common.probability(t.p_value), f"{t.suspects:,}", *rates])
    return rows


def _say(text: str) -> None:
    common.out.print(common.escape(common.printable(text)), soft_wrap=True)
