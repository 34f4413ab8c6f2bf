"""``doorward cleanse``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from doorward.cli import common


def cleanse_command(
    source: Annotated[str, typer.Argument(help="The training set that the model was trained on.")],
    model: Annotated[Path, typer.Option(help="Folder written by 'doorward train'.")],
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
    split: common.Split = "train",
    seed: common.Seed = 0,
    device: common.Device = "auto",
    overwrite: common.Overwrite = False,
    as_json: common.AsJson = False,
) -> None:
    """Look for poisoned images in a training set, with a model trained on it.

    Ends with exit code 1 when a method flags images, 0 when none does.

    Example: doorward cleanse poisoned/ --model model/ --method impurity --method spectral -o run/
    """
    from doorward.cleansers.job import CleanseRequest, cleanse_to_folder
    from doorward.core.methods import build_settings

    asked = {
        "source": source,
        "split": split,
        "model": str(model),
        "methods": tuple(method or ()),
        "settings": common.parse_method_settings(setting),
        "knowledge": common.parse_knowledge(know),
        "seed": seed,
        "device": device,
    }
    request = build_settings(CleanseRequest, "cleanse", asked)
    with common.display("cleanse") as progress:
        results = cleanse_to_folder(
            request, output, overwrite=overwrite, command=common.command_line(), progress=progress
        )
    if as_json:
        common.print_json(results)
    else:
        _show(results, output)
    flagged = any(m["flagged"] for m in results["methods"].values())
    raise typer.Exit(common.FOUND_SOMETHING if flagged else common.FOUND_NOTHING)


def _show(results: dict[str, Any], output: Path) -> None:
    from doorward.reports.sections.cleanse import POOR_ACCURACY

    names = results["images"]["classes"]
    rows = []
    for name, found in results["methods"].items():
        classes: dict[str, int] = {}
        for group in found["groups"]:
            if group["flagged"]:
                classes[names[group["label"]]] = classes.get(names[group["label"]], 0) + group["flagged"]
        where = ", ".join(f"{label} ({count})" for label, count in sorted(classes.items(), key=lambda c: -c[1])[:6])
        rows.append(
            [
                name,
                f"{found['flagged']:,}",
                where or "-",
                ", ".join(found["knowledge"]) or "-",
                f"{found['seconds']:.1f} s",
            ]
        )
    total = f"{sum(results['images']['counts']):,} images"
    common.print_table(f"Suspects among {total}", ["method", "flagged", "in class", "knowledge used", "time"], rows)
    accuracy = results["classifier"]["accuracy_on_images"]["value"]
    if accuracy < POOR_ACCURACY:
        told = f"right on {100 * accuracy:.1f} % of these images only; from a poor classifier the methods see little"
        common.err.print(f"model: {told}", soft_wrap=True)
    for name, found in results["methods"].items():
        for warning in found["warnings"]:
            common.err.print(f"{name}: {common.escape(warning)}", soft_wrap=True)
    shown = common.escape(shlex.quote(str(output)))
    common.out.print(f"written to {common.escape(str(output))}; see it with: doorward report {shown}")
