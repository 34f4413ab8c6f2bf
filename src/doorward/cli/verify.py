"""``doorward verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doorward.cli import common


def verify_command(
    certificate: Annotated[Path, typer.Argument(help="certificate.json")],
    train_sha256: Annotated[str | None, typer.Option(help="It must be about this training set.")] = None,
    test_sha256: Annotated[str | None, typer.Option(help="It must be about these test images.")] = None,
    as_json: common.AsJson = False,
) -> None:
    """Check a certificate: derive every label and radius again, in integers, with code of its own.

    Ends with exit code 1 when something does not follow. Without the data it cannot know whether votes, evidence or
    true labels were made up together with a new hash; give the data's hashes, or certify again with the same seed.

    Example: doorward verify run/certificate.json
    """
    from doorward.verifier import verify

    report = verify(certificate, train_sha256, test_sha256)
    if as_json:
        told = {
            "valid": report.valid,
            "problems": list(report.problems),
            "images": report.images,
            "method": report.method,
        }
        common.print_json(told)
    elif report.valid:
        common.out.print(f"valid: {report.method}, {report.images:,} images, every radius derived again")
    else:
        for problem in report.problems:
            common.err.print(f"rejected: {common.escape(common.printable(problem))}", soft_wrap=True)
    raise typer.Exit(common.FOUND_NOTHING if report.valid else common.FOUND_SOMETHING)
