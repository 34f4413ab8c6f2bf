"""``doorward attack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doorward.cli import common


def attack_command(
    source: Annotated[str, typer.Argument(help="A named set, a folder, a file: see 'doorward data list'.")],
    output: common.Output,
    recipe: Annotated[str, typer.Option(help="patch, pixel, blend, accessory, sinusoid or warp.")] = "patch",
    target: Annotated[str, typer.Option(help="Target class (number or name), or 'next' for all-to-all.")] = "0",
    source_class: Annotated[
        list[str] | None, typer.Option(help="Source class; may be repeated. Default: all others.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="YAML list of pairings, for several triggers and targets.")] = None,
    rate: Annotated[float | None, typer.Option(help="Poisoned images per image, between 0 and 1.")] = None,
    count: Annotated[int | None, typer.Option(help="Number of poisoned images, instead of a rate.")] = None,
    mode: Annotated[str, typer.Option(help="replace: stamp in place; add: stamped copies are added.")] = "replace",
    setting: common.Set = None,
    split: common.Split = "train",
    size: common.Size = None,
    resize: common.Resize = "crop",
    skip_bad: common.SkipBad = False,
    seed: common.Seed = 0,
    overwrite: common.Overwrite = False,
    as_json: common.AsJson = False,
) -> None:
    """Poison an image set: stamp a trigger on some images and change their labels.

    The truth about who is poisoned is written apart, as truth.parquet, for scoring alone.

    Example: doorward attack mnist-5k --recipe pixel --target 0 --rate 0.02 --seed 1 -o poisoned/
    """
    from doorward.attacks.job import AttackRequest, attack_to_folder
    from doorward.core.methods import build_settings

    asked = {
        "source": source,
        "split": split,
        "size": size,
        "resize": resize,
        "skip_bad": skip_bad,
        "recipe": recipe,
        "target": target,
        "sources": tuple(source_class or ()),
        "plan": None if plan is None else str(plan),
        "rate": rate if rate is not None or count is not None else 0.02,
        "count": count,
        "mode": mode,
        "settings": common.parse_settings(setting),
        "seed": seed,
    }
    request = build_settings(AttackRequest, "attack", asked, options=True)
    with common.display("attack"):
        made = attack_to_folder(request, output, overwrite=overwrite, command=common.command_line())
    if as_json:
        common.print_json(made.model_dump(mode="json"))
        return
    common.out.print(f"{made.poisoned} of {made.images} images poisoned: ", end="")
    common.out.print(common.escape(made.description))
    common.out.print(f"written to {common.escape(str(output))} (the truth: truth.parquet and attack/)")
