"""``doorward reproduce mesa``: the slides' table and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from doorward.cli import common
from doorward.cli.reproduced import carry_out


def mesa_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the runs; finished ones are kept.")] = Path(
        "runs/mesa"
    ),
    results: Annotated[Path | None, typer.Option(help="Folder of page, data and figures; default OUTPUT/results.")] = (
        None
    ),
    profile: Annotated[str, typer.Option(help="cpu, gpu (all 61 triggers) or quick (digits).")] = "cpu",
    source: Annotated[
        str | None, typer.Option(help="Images instead of the profile's, training and test: cifar100, a folder, .npz.")
    ] = None,
    net: Annotated[str | None, typer.Option(help="Net instead of the profile's.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PART.NAME=VALUE", help="A setting of clean, attack, mesa, pixel, mask, repair."),
    ] = None,
    black_white: Annotated[int | None, typer.Option(help="Black-and-white triggers instead of the profile's.")] = None,
    colour: Annotated[int | None, typer.Option(help="Random-colour triggers instead of the profile's.")] = None,
    without_crutches: Annotated[
        bool | None,
        typer.Option("--without-crutches/--with-crutches", help="Unknown size, unknown target, fixed place; or none."),
    ] = None,
    target: Annotated[str, typer.Option(help="Target class.")] = "0",
    seed: common.Seed = 0,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CASE", help="Run this trigger alone; may be repeated.")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="ARM", help="Leave out this repair, such as ibau; may be repeated.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=0, help="Triggers at a time, a process each; 0: one per core, or one on a GPU.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would run and estimate its time.")] = False,
    device: common.Device = "auto",
    as_json: common.AsJson = False,
) -> None:
    """Slides of Qiao, Yang and Li 2019: 3 x 3 triggers, their distribution, repair by retraining.

    Killed, it goes on at the first unfinished stage when the same command is repeated.

    Example: doorward reproduce mesa --profile quick -o runs/mesa-quick
    """
    from doorward.core.methods import build_settings
    from doorward.papers import mesa as paper

    asked: dict[str, Any] = {
        "source": source,
        "net": net,
        "settings": common.parse_method_settings(setting),
        "black_white": black_white,
        "colour": colour,
        "without_crutches": without_crutches,
        "target": target,
        "seed": seed,
        "device": device,
        "command": common.command_line(),
    }
    plan = paper.only(
        paper.make_plan(profile, build_settings(paper.Wishes, "reproduce", asked, options=True)), only or ()
    )
    plan = paper.skip(plan, skip or ())
    paper.check(plan)
    if dry_run:
        _show_plan(plan, output, jobs, as_json)
        return
    carry_out(paper, plan, output, results, jobs=jobs, as_json=as_json)


def _show_plan(plan: Any, output: Path, jobs: int, as_json: bool) -> None:
    from doorward.papers.mesa.estimate import dry_run

    estimates, seconds = dry_run(plan, output, jobs)
    if as_json:
        common.print_json({"stages": [vars(e) for e in estimates], "seconds": seconds})
        return
    rows = [[e.stage, e.state, f"{e.seconds / 60:.1f}" if e.seconds else "–"] for e in estimates]
    common.print_table(f"{len(estimates)} stages", ["stage", "state", "minutes"], rows)
    common.out.print(
        f"about {seconds / 3600:.1f} hours, at speeds measured now; attacks are counted with half of their rounds",
        soft_wrap=True,
    )
