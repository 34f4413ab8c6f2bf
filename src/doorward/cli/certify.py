"""``doorward certify`` and ``doorward verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doorward.certification.request import CertifyRequest
from doorward.cli import common
from doorward.cli.options import options_of
from doorward.core.settings import build_settings

if TYPE_CHECKING:
    from doorward.certification.results import CertifyRecord


@options_of(CertifyRequest, settings=common.Set, split=common.Split, seed=common.Seed, device=common.Device)
def certify_command(
    source: Annotated[str, typer.Argument(help=CertifyRequest.model_fields["source"].description)],
    output: common.Output,
    *,
    overwrite: common.Overwrite = False,
    as_json: common.AsJson = False,
    **asked: Any,
) -> None:
    """Prove how many changed pixels and labels a training procedure withstands.

    For each test image: the largest number of training pixels, training labels and pixels of the image itself,
    together, that can be changed without changing the prediction.

    Example: doorward certify mnist-5k --classes 1,7 --train 100 --test 500 --keep 0.9 --trials 10000 -o run/
    """
    from doorward.certification.job import certify_to_folder

    asked = {"source": source, **asked, "settings": common.parse_settings(asked["settings"])}
    request = build_settings(CertifyRequest, "certify", asked, options=True)
    with common.display("certify") as progress:
        record = certify_to_folder(
            request, output, overwrite=overwrite, command=common.command_line(), progress=progress
        )
    if as_json:
        common.print_json(record.model_dump(mode="json"))
    else:
        _show(record, output)


def _show(record: CertifyRecord, output: Path) -> None:
    rows = []
    for radius, share in record.certified_accuracy.items():
        low, high = record.intervals[radius]
        shared = 100 * record.jointly_certified_accuracy.get(radius, 0.0)
        rows.append([str(radius), f"{100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}]", f"{shared:.1f}"])
    if len(rows) > 14:
        rows = [row for row in rows if int(row[0]) % -(-len(rows) // 12) == 0]
    what = f"{record.learner}, {record.test_images:,} test images"
    common.print_table(f"Certified accuracy: {what}", ["radius", "certified %, each image", "all jointly"], rows)
    if record.attack_search and record.attack_search.attacked:
        gaps, attacked = record.attack_search.gaps, record.attack_search.attacked
        exact, near = gaps.get(0, 0) / attacked, (gaps.get(0, 0) + gaps.get(1, 0)) / attacked
        told = f"attacks found on {attacked:,} images: the radius is the exact truth for {100 * exact:.0f} % of them"
        common.out.print(f"{told}, at most one cell short for {100 * near:.0f} %", soft_wrap=True)
    if record.abstained:
        common.out.print(f"{record.abstained} images without a certain label; they never count as right")
    common.out.print(
        f"written to {common.escape(str(output))}; check it with: doorward verify ", end="", soft_wrap=True
    )
    common.out.print(common.escape(str(output / "certificate.json")), soft_wrap=True)
