"""``doorward report``: one HTML page from finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doorward.cli import common
from doorward.core.errors import DoorwardError

if TYPE_CHECKING:
    from doorward.reports.page import Page


def report_command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Folders of finished runs: audit, cleanse, invert, repair, screen, certify."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")] = Path("report.html"),
    sarif: Annotated[Path | None, typer.Option(help="Write the findings as SARIF 2.1.0 too.", metavar="FILE")] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    as_json: common.AsJson = False,
) -> None:
    """Write one self-contained HTML page about one or several runs.

    Ends with exit code 1 when a run came to evidence or suspicion, 0 when none did.

    Example: doorward report run/ -o report.html --sarif findings.sarif
    """
    from doorward.core.files import atomic_write, write_json
    from doorward.reports.page import compose, refuse_if_taken
    from doorward.reports.sarif import sarif as as_sarif

    if sarif is not None and sarif.resolve() == output.resolve():
        raise DoorwardError(f"--sarif {sarif}: is the page's own file; expected another name")
    for path in filter(None, (output, sarif)):
        refuse_if_taken(path, overwrite)
    page = compose(runs, title)
    if sarif is not None:
        write_json(sarif, as_sarif(page.sections))
    atomic_write(output, page.html)
    if as_json:
        common.print_json(_summary(page, output, sarif))
    else:
        _show(page, output, sarif)
    raise typer.Exit(common.FOUND_SOMETHING if page.has_findings else common.FOUND_NOTHING)


def _show(page: Page, output: Path, sarif: Path | None) -> None:
    lines = [f"{section.run.name}: {section.verdict.headline}" for section in page.sections]
    lines.append(f"report: {output} ({output.stat().st_size / 1e6:.2f} MB)")
    if sarif is not None:
        lines.append(f"SARIF: {sarif}")
    for line in lines:
        common.out.print(common.escape(common.printable(line)), soft_wrap=True)


def _summary(page: Page, output: Path, sarif: Path | None) -> dict[str, Any]:
    return {
        "report": str(output),
        "bytes": output.stat().st_size,
        "sarif": None if sarif is None else str(sarif),
        "title": page.title,
        "runs": [
            {
                "run": section.run.name,
                "verb": section.run.manifest.verb,
                "verdict": section.verdict.level,
                "headline": section.verdict.headline,
                "reasons": list(section.verdict.reasons),
                "findings": [
                    {
                        "method": f.method, "label": f.label, "class": f.class_name, "flagged": f.flagged,
                        "images": f.size, "agreement": f.agreement, "counted": f.counted, "level": f.level,
                        "p_value": f.p_value, "sentence": f.sentence, "file": f.file,
                    }
                    for f in section.findings
                ],
            }
            for section in page.sections
        ],
    }  # fmt: skip
