"""``doorward cleanse``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doorward.cli import common, models

if TYPE_CHECKING:
    from doorward.cleansers.results import CleanseRecord


@models.takes_model
def cleanse_command(
    source: Annotated[str, typer.Argument(help="The training set that the model was trained on.")],
    model: models.ModelOption,
    output: common.Output,
    method: Annotated[list[str] | None, typer.Option(help="May be repeated; see 'doorward methods cleanse'.")] = None,
    setting: common.Set = None,
    know: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Declared knowledge: poisoning_rate, target_class, clean_images (rows, as [0,1,5]).",
        ),
    ] = None,
    level: Annotated[float, typer.Option(help="Chance of a verdict against a set without poison.")] = 0.05,
    split: common.Split = "train",
    seed: common.Seed = 0,
    *,
    dry_run: common.DryRun = False,
    overwrite: common.Overwrite = False,
    as_json: common.AsJson = False,
    **opening: Any,
) -> None:
    """Look for poisoned images in a training set, with a model trained on it.

    Ends with exit code 1 for evidence or suspicion, 0 when nothing is found, 3 when nothing can be decided. Images that
    a method flags without weight stand in the table alone.

    Example: doorward cleanse photos/ --model weights.pth --arch mine.py:make_net --size 96 -o run/
    Example: doorward cleanse poisoned/ --model model/ --method impurity --method spectral -o run/
    """
    from doorward.cleansers.job import CleanseRequest, cleanse_to_folder, plan_to_cleanse
    from doorward.core.methods import build_settings

    asked = {
        **models.as_request(model, opening),
        "source": source,
        "split": split,
        "methods": tuple(method or ()),
        "settings": common.parse_method_settings(setting),
        "knowledge": common.parse_knowledge(know),
        "level": level,
        "seed": seed,
    }
    request = build_settings(CleanseRequest, "cleanse", asked, options=True)
    if dry_run:
        common.show_plan(plan_to_cleanse(request), as_json)
    with common.display("cleanse") as progress:
        found = cleanse_to_folder(
            request, output, overwrite=overwrite, command=common.command_line(), progress=progress
        )
    if as_json:
        common.print_json(found.record.model_dump(mode="json"))
    else:
        _show(found.record, output)
    raise typer.Exit(common.exit_code(found.verdict))


def _show(record: CleanseRecord, output: Path) -> None:
    from doorward.core.text import with_class_names

    rows = []
    for name, found in record.methods.items():
        own = sorted((f for f in record.findings if f.method == name), key=lambda f: -f.flagged)
        where = ", ".join(f"{f.class_name} ({f.flagged:,})" for f in own[:6])
        knowledge = ", ".join(found.knowledge) or "-"
        rows.append([name, f"{found.flagged:,}", where or "-", common.probability(found.p_value), knowledge])
    total = f"{sum(record.images.counts):,} images"
    common.print_table(f"Suspects among {total}", ["method", "flagged", "in class", "p", "knowledge used"], rows)
    for name, found in record.methods.items():
        for warning in (*found.warnings, *([f"no p-value: {found.undecided}"] if found.undecided else [])):
            told = common.printable(with_class_names(warning, record.images.classes))
            common.err.print(f"{name}: {common.escape(told)}", soft_wrap=True)
    common.show_notes(record.warnings)
    common.show_verdict(record.judgement)
    shown = common.escape(shlex.quote(str(output)))
    common.out.print(f"written to {common.escape(str(output))}; see it with: doorward report {shown}", soft_wrap=True)
