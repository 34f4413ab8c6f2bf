"""``doorward invert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from doorward.cli import common, models


def invert_command(
    model: models.Model,
    output: common.Output,
    arch: models.Arch = None,
    images: Annotated[str | None, typer.Option(help="Clean images; not needed by --method margin.")] = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Do not use the images' labels, but the model's decisions.")
    ] = False,
    method: Annotated[list[str] | None, typer.Option(help="May be repeated; see 'doorward methods invert'.")] = None,
    setting: common.Set = None,
    know: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Declared knowledge: target_class.")
    ] = None,
    mean: models.Mean = None,
    std: models.Std = None,
    value_range: models.Range = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes, when the weights do not tell.")] = None,
    shape: Annotated[str | None, typer.Option(metavar="C,H,W", help="Image size, when there are no images.")] = None,
    split: models.Split = None,
    level: Annotated[float, typer.Option(help="Chance of a false alarm on a clean model.")] = 0.05,
    reference: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="A clean model for the same classes; may be repeated. Sharpens p-values."),
    ] = None,
    train_references: Annotated[
        int, typer.Option(help="Train so many small clean models on --images as references; 2 or 3 are enough.")
    ] = 0,
    prescreen: Annotated[
        int, typer.Option(help="Invert only so many classes, those of the largest margin; 0 for all.")
    ] = 0,
    repeat: Annotated[
        int, typer.Option(help="Hide what was found and look again, at most so many rounds; for several triggers.")
    ] = 1,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    overwrite: common.Overwrite = False,
    as_json: common.AsJson = False,
) -> None:
    """Look for a backdoor in a model: triggers per class, and one verdict with its p-value.

    Ends with exit code 1 when a class stands out, 0 when none does.

    Example: doorward invert model/ --images mnist-5k --method mask --method margin -o run/
    """
    from doorward.core.methods import build_settings
    from doorward.inversion.job import InvertRequest, invert_to_folder

    asked = {
        **models.of_model(model, arch, mean, std, value_range),
        "source": images,
        "split": split,
        "labelled": not unlabelled,
        "classes": classes,
        "shape": models.parse_numbers("--shape", shape, count=3, whole=True),
        "methods": tuple(method or ()),
        "settings": common.parse_method_settings(setting),
        "knowledge": common.parse_knowledge(know),
        "level": level,
        "references": tuple(reference or ()),
        "train_references": train_references,
        "prescreen": prescreen,
        "repeat": repeat,
        "seed": seed,
        "device": device,
    }
    request = build_settings(InvertRequest, "invert", asked)
    with common.display("invert") as progress:
        results = invert_to_folder(
            request, output, overwrite=overwrite, command=common.command_line(), progress=progress
        )
    if as_json:
        common.print_json(results)
    else:
        _show(results, output)
    raise typer.Exit(common.FOUND_SOMETHING if results["targets"] else common.FOUND_NOTHING)


def _show(results: dict[str, Any], output: Path) -> None:
    names = [row["class"] for row in results["classes"]]
    ranked = sorted(results["classes"], key=lambda row: (row["p_value"] is None, row["p_value"]))[:10]
    rows = []
    for row in ranked:
        cells = [names[row["label"]], _probability(row["p_value"])]
        for found in results["methods"].values():
            mine = found["classes"][row["label"]]
            cells.append("-" if mine["statistic"] is None else f"{mine['statistic']:.2f}")
            cells.append("-" if mine["asr"] is None else "{1:.0%} [{0:.0%}, {2:.0%}]".format(*mine["asr"]))
        rows.append(cells)
    columns = ["class", "p-value"]
    for name in results["methods"]:
        columns += [name, "success"]
    common.print_table(f"{len(names)} classes, most suspicious first", columns, rows)
    for name, found in results["methods"].items():
        for warning in [*found["warnings"], *([found["undecided"]] if found["undecided"] else [])]:
            common.err.print(f"{name}: {common.escape(warning)}", soft_wrap=True)
    for warning in results["warnings"]:
        common.err.print(f"model: {common.escape(warning)}", soft_wrap=True)
    found_in = ", ".join(common.printable(t["class"]) for t in results["targets"])
    verdict = f"backdoor into {found_in}" if results["targets"] else results["verdict"]
    common.out.print(f"verdict: {common.escape(verdict)}, p {_probability(results['p_value'])}")
    common.out.print(f"written to {common.escape(str(output))}")


def _probability(value: float | None) -> str:
    return "-" if value is None else "< .0001" if value < 1e-4 else f"{value:.4f}"
