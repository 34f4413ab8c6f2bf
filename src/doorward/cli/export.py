"""``doorward export``: what an audit or a cleansing leaves, or what it suspects, back into the user's hands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from doorward.cli import common
from doorward.core.errors import DoorwardError

Format = Literal["folder", "csv", "parquet", "npz", "ids"]


def export_command(
    run: Annotated[Path, typer.Argument(help="Folder written by 'doorward audit' or 'doorward cleanse'.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="What to write; must not exist yet.")],
    keep: Annotated[bool, typer.Option("--keep/--suspects", help="The images that stay, or the suspects.")] = True,
    format: Annotated[str, typer.Option("--format", help="folder, csv, parquet, npz or ids.")] = "folder",
    source: Annotated[
        str | None, typer.Option(help="The training set, where it has moved since; else the run's own source.")
    ] = None,
    doubtful: Annotated[
        bool, typer.Option("--doubtful", help="Take the doubtful images of an audit for suspects, too.")
    ] = False,
    link: Annotated[bool, typer.Option("--link", help="Hard links to the original files, not copies.")] = False,
) -> None:
    """Write the training set without the suspects of an audit or a cleanse run; nothing is deleted or replaced.

    Original files are copied as they are. ``--format ids`` writes the names alone, one a line.

    Example: doorward export audit/ --keep -o photos-clean/
    """
    from doorward.audits.job import AuditRequest
    from doorward.audits.results import Audit
    from doorward.cleansers.job import CleanseRequest
    from doorward.cleansers.results import Cleansing
    from doorward.core.runs import Run
    from doorward.data.export import export_images
    from doorward.data.sources import load_images

    manifest = Run.read(run)
    audited = manifest["verb"] == "audit"
    found: Audit | Cleansing = Audit.load(run) if audited else Cleansing.load(run)
    suspected, looked_at = found.suspected(), found.record.images
    if doubtful:
        if not isinstance(found, Audit):
            raise DoorwardError(f"{run}: no audit of a training set; expected one, which alone has --doubtful images")
        suspected = found.suspected(doubtful=True)
    if not keep and not suspected.any():
        raise DoorwardError(f"{run}: has no suspects; expected a run with some, or --keep")
    request = AuditRequest if audited else CleanseRequest
    asked = {k: v for k, v in manifest["settings"].items() if k in request.model_fields}
    where = source or asked.get("source")
    if not where:
        raise DoorwardError(f"{run}: names no source, for it was saved from Python; expected --source SET")
    images = load_images(where) if source else request(**asked).read(where, asked.get("split") or "train")
    if looked_at is None or not looked_at.are(images.hashes):
        raise DoorwardError(f"{where}: other images than {run} looked at; expected the same set (--source)")
    chosen = images.subset(~suspected if keep else suspected)
    written = export_images(chosen, output, cast(Format, format), link=link)
    left = f"{int(suspected.sum()):,} suspects {'left out' if keep else 'written'}"
    place = common.escape(common.printable(str(written)))
    common.out.print(f"{len(chosen):,} images are in {place}; {left}", soft_wrap=True)
