"""``doorward invert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doorward.cli import common, models

if TYPE_CHECKING:
    from doorward.inversion.results import InvertRecord


TrainReferences = Annotated[
    int, typer.Option(help="Train so many clean models of the same architecture on --images as references; 2 or 3 do.")
]
ReferenceNet = Annotated[
    str | None,
    typer.Option(metavar="ARCH", help="Another architecture for them, as --arch has it; else the model's own."),
]


@models.takes_model
def invert_command(
    model: models.Model,
    output: common.Output,
    images: Annotated[
        str | None,
        typer.Option(help="Clean images; not needed by --method margin or head.", rich_help_panel=common.PICTURES),
    ] = None,
    unlabelled: Annotated[
        bool,
        typer.Option(
            "--unlabelled",
            help="Do not use the images' labels, but the model's decisions.",
            rich_help_panel=common.PICTURES,
        ),
    ] = False,
    method: Annotated[list[str] | None, typer.Option(help="May be repeated; see 'doorward methods invert'.")] = None,
    setting: common.Set = None,
    know: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Declared knowledge: target_class.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(metavar="C,H,W", help="Image size, when there are no images.", rich_help_panel=common.PICTURES),
    ] = None,
    level: Annotated[float, typer.Option(help="Chance of a false alarm on a clean model.")] = 0.05,
    reference: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="A clean model for the same classes; may be repeated. Sharpens p-values."),
    ] = None,
    train_references: TrainReferences = 0,
    reference_net: ReferenceNet = None,
    prescreen: Annotated[
        int, typer.Option(help="Invert only so many classes, those of the largest margin; 0 for all.")
    ] = 0,
    repeat: Annotated[
        int, typer.Option(help="Hide what was found and look again, at most so many rounds; for several triggers.")
    ] = 1,
    seed: common.Seed = 0,
    *,
    dry_run: common.DryRun = False,
    overwrite: common.Overwrite = False,
    as_json: common.AsJson = False,
    **opening: Any,
) -> None:
    """Look for a backdoor in a model: triggers per class, and one verdict with its p-value.

    Ends with exit code 1 when a class stands out, 0 when none does, 3 when nothing can be decided.

    Example: doorward invert model/ --images mnist-5k --method mask --method margin -o run/
    """
    from doorward.core.methods import build_settings
    from doorward.inversion.job import InvertRequest, invert_to_folder, plan_to_invert

    asked = {
        **models.as_request(model, opening),
        "source": images,
        "labelled": not unlabelled,
        "shape": models.parse_numbers("--shape", shape, count=3, whole=True),
        "methods": tuple(method or ()),
        "settings": common.parse_method_settings(setting),
        "knowledge": common.parse_knowledge(know),
        "level": level,
        "references": tuple(reference or ()),
        "train_references": train_references,
        "reference_net": reference_net,
        "prescreen": prescreen,
        "repeat": repeat,
        "seed": seed,
    }
    request = build_settings(InvertRequest, "invert", asked, options=True)
    if dry_run:
        common.show_plan(plan_to_invert(request), as_json)
    with common.display("invert") as progress:
        found = invert_to_folder(request, output, overwrite=overwrite, command=common.command_line(), progress=progress)
    if as_json:
        common.print_json(found.record.model_dump(mode="json"))
    else:
        _show(found.record, output)
    raise typer.Exit(common.exit_code(found.verdict))


def _show(record: InvertRecord, output: Path) -> None:
    ranked = sorted(record.classes, key=lambda row: (row.p_value is None, row.p_value))[:10]
    rows = []
    for row in ranked:
        cells = [row.class_name, common.probability(row.p_value)]
        for found in record.methods.values():
            mine = found.classes[row.label]
            cells.append("-" if mine.statistic is None else f"{mine.statistic:.2f}")
            cells.append("-" if mine.asr is None else f"{mine.asr.value:.0%} [{mine.asr.low:.0%}, {mine.asr.high:.0%}]")
        rows.append(cells)
    columns = ["class", "p-value"]
    for name in record.methods:
        columns += [name, "success"]
    common.print_table(f"{len(record.classes)} classes, most suspicious first", columns, rows)
    for name, found in record.methods.items():
        for warning in [*found.warnings, *([found.undecided] if found.undecided else [])]:
            common.err.print(f"{name}: {common.escape(warning)}", soft_wrap=True)
    common.show_notes(record.warnings)
    common.show_verdict(record.judgement)
    common.out.print(f"written to {common.escape(str(output))}")
