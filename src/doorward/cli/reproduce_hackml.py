"""``doorward reproduce hackml``: faces, any shape, fixed place, natural backdoors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from doorward.cli import common
from doorward.cli.reproduced import carry_out


def hackml_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the runs; finished ones are kept.")] = Path(
        "runs/hackml"
    ),
    results: Annotated[Path | None, typer.Option(help="Folder of page, data and pictures; default OUTPUT/results.")] = (
        None
    ),
    faces: Annotated[
        Path | None, typer.Option(help="The ORL faces as .npz (images 400 x 112 x 92, labels); without: drawn faces.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A DeepID net of CSAW HackML 2020 (.h5) to scan too; its target is class 0.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="PART.NAME=VALUE", help="Of train, window, a repair.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Repairs instead of retrain, unlearn, ibau, prune; may be repeated.")
    ] = None,
    references: Annotated[int, typer.Option(min=1, help="Clean nets that the defence trains on its own faces.")] = 2,
    seed: common.Seed = 0,
    only: Annotated[list[str] | None, typer.Option(metavar="NET", help="This net alone; may be repeated.")] = None,
    jobs: Annotated[
        int, typer.Option(min=0, help="Nets at a time, a process each; 0: one per core, or one on a GPU.")
    ] = 0,
    device: common.Device = "auto",
    as_json: common.AsJson = False,
) -> None:
    """HackML slides of Qiao, Yang and Li 2019: backdoored face nets, heat maps, repair, guard, screens.

    Killed, it goes on at the first unfinished stage when the same command is repeated.

    Example: doorward reproduce hackml --only sunglasses -o runs/hackml
    """
    from doorward.core.methods import build_settings
    from doorward.papers import hackml as paper

    asked: dict[str, Any] = {
        "faces": None if faces is None else str(faces),
        "weights": None if weights is None else str(weights),
        "settings": common.parse_method_settings(setting),
        **({"methods": tuple(dict.fromkeys(method))} if method else {}),
        "references": references,
        "seed": seed,
        "device": device,
        "command": common.command_line(),
    }
    plan = paper.only(paper.make_plan(build_settings(paper.Wishes, "reproduce", asked, options=True)), only or ())
    paper.check(plan)
    if faces is None:
        common.err.print("no --faces FILE: drawn faces take the place of the ORL database")
    carry_out(paper, plan, output, results, jobs=jobs, as_json=as_json)
