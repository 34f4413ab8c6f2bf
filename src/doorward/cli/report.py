"""``doorward report``: one HTML page from finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of cleanse or certify runs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML file to write.")] = Path("report.html"),
    sarif: Annotated[Path | None, typer.Option(help="Write the findings as SARIF 2.1.0 too.", metavar="FILE")] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with the verdicts.")] = False,
) -> None:
    """Write one self-contained HTML page about one or several runs.

    Example: doorward report run/ -o report.html --sarif findings.sarif

    Exit code: 0 when no run found anything, 1 with findings, 2 on an error.
    """
    from doorward.report.page import compose, refuse_if_taken, write_text
    from doorward.report.sarif import sarif as as_sarif

    for path in filter(None, (output, sarif)):
        refuse_if_taken(path, overwrite)
    page = compose(runs, title)
    if sarif is not None:
        write_text(sarif, json.dumps(as_sarif(page.sections), indent=1, allow_nan=False) + "\n")
    write_text(output, page.html)
    if as_json:
        typer.echo(json.dumps(_summary(page, output, sarif), allow_nan=False))
    else:
        for section in page.sections:
            typer.echo(f"{_plain(section.run.name)}: {_plain(section.verdict.headline)}")
        typer.echo(f"Report: {output} ({output.stat().st_size / 1e6:.2f} MB)")
        if sarif is not None:
            typer.echo(f"SARIF:  {sarif}")
    raise typer.Exit(1 if page.has_findings else 0)


def _plain(text: str) -> str:
    from doorward.report.text import visible

    return visible(text)


def _summary(page: Any, output: Path, sarif: Path | None) -> dict[str, Any]:
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
                    }
                    for f in section.findings
                ],
            }
            for section in page.sections
        ],
    }  # fmt: skip
