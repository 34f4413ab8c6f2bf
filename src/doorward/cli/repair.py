"""``doorward repair``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doorward.cli import common, models

if TYPE_CHECKING:
    from doorward.repairs.results import RepairRecord


@models.takes_model
def repair_command(
    model: models.Model,
    output: common.Output,
    images: Annotated[str, typer.Option(help="Clean images with their labels.", rich_help_panel=common.PICTURES)],
    triggers: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Folder written by 'doorward invert', 'cleanse' or 'audit': what hold, retrain and unlearn use.",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="May be repeated; default hold with --triggers, else ibau. See 'doorward methods repair'."),
    ] = None,
    setting: common.Set = None,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="Class whose triggers to use, instead of the verdict's; may be repeated."),
    ] = None,
    trigger_method: Annotated[str | None, typer.Option(help="Inversion whose triggers to use, such as mesa.")] = None,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Also repair without triggers, to compare with.")
    ] = True,
    held_out: Annotated[
        float, typer.Option(help="Share of the images that no arm sees; all are measured on it.")
    ] = 0.2,
    proof: Annotated[
        bool, typer.Option("--proof/--no-proof", help="Invert the repaired models afresh; the verdict rests on it.")
    ] = True,
    share: Annotated[
        float, typer.Option(help="Use this share of --images, drawn by --seed.", rich_help_panel=common.PICTURES)
    ] = 1.0,
    seed: common.Seed = 0,
    *,
    dry_run: common.DryRun = False,
    overwrite: common.Overwrite = False,
    as_json: common.AsJson = False,
    **opening: Any,
) -> None:
    """Take a backdoor out of a model, and show how much of it is due to the triggers.

    Ends with exit code 1 when a fresh inversion or variations of the triggers show that the backdoor is still there, 0
    when they do not, 3 where nothing can be decided, such as without triggers to measure with. Where the inversion
    accuses no class nothing is done, the model lies in the output as it came, and the exit code is 0.
    Settings are given as --set METHOD.NAME=VALUE, such as --set retrain.share=0.01.

    Example: doorward repair model/ --images mnist-5k --triggers run/ -o repaired/
    """
    from doorward.core.methods import build_settings
    from doorward.repairs.job import RepairRequest, plan_to_repair, repair_to_folder

    asked = {
        **models.as_request(model, opening),
        "source": images,
        "share": share,
        "triggers": None if triggers is None else str(triggers),
        "trigger_method": trigger_method,
        "targets": tuple(target or ()),
        "methods": tuple(method or ()),
        "settings": common.parse_method_settings(setting),
        "controls": controls,
        "held_out": held_out,
        "proof": proof,
        "seed": seed,
    }
    request = build_settings(RepairRequest, "repair", asked, options=True)
    if dry_run:
        common.show_plan(plan_to_repair(request), as_json)
    with common.display("repair") as progress:
        made = repair_to_folder(request, output, overwrite=overwrite, command=common.command_line(), progress=progress)
    if as_json:
        common.print_json(made.record.model_dump(mode="json"))
    else:
        _show(made.record, output)
    raise typer.Exit(common.exit_code(made.verdict))


def _show(record: RepairRecord, output: Path) -> None:
    if len(record.arms) > 1:
        _show_arms(record)
    else:
        told = f"clean accuracy {record.given.accuracy.rate()} % on {record.images.held_out} held-out images"
        common.out.print(common.escape(told), soft_wrap=True)
    common.show_notes(record.warnings)
    common.show_verdict(record.judgement)
    first = record.kept
    if first.file is not None:
        place = common.escape(str(output / (first.folder or "") / first.file))
        what = "repaired weights, in the form they came in" if len(record.arms) > 1 else "the weights as they came"
        common.out.print(f"{what}: {place}", soft_wrap=True)
    common.out.print(f"written to {common.escape(str(output))}")


def _show_arms(record: RepairRecord) -> None:
    from doorward.repairs.proof_text import variations_cell

    if record.triggers:
        told = [f"{t.class_name} (by {t.method}, {t.stamps} kept)" for t in record.triggers.targets]
        common.out.print(f"triggers into {common.escape(common.printable(', '.join(told)))}", soft_wrap=True)
    rows = []
    for row in record.arms:
        seconds = "-" if row.role == "given" else f"{row.seconds:.1f}"
        success = "-" if row.asr is None else str(row.asr.rate())
        arm = row.name if row.role in ("given", "repair") else f"{row.name}, {row.role}"
        rows.append([arm, str(row.accuracy.rate()), variations_cell(row), success, seconds])
    columns = ["arm", "accuracy %", "variations of triggers %", "triggers trained against %", "s"]
    title = f"On {record.images.held_out} held-out clean images, with 95 % intervals"
    common.print_table(title, columns, rows, empty=False)
