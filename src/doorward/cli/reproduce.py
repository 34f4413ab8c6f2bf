"""``doorward reproduce``: published tables and figures, each with one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doorward.cli import common

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command("smoothing-mnist17")
def smoothing_mnist17(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the runs; finished ones are kept.")] = Path(
        "runs/smoothing-mnist17"
    ),
    results: Annotated[
        Path | None, typer.Option(help="Folder of table, data and figure; default OUTPUT/results.")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="mnist (after 'doorward data fetch mnist') or mnist-5k (bundled).")
    ] = "mnist",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    device: common.Device = "auto",
    as_json: common.AsJson = False,
) -> None:
    """Figure 1 of Wang, Cao, Jia and Gong 2020, and how far past its 36 % one gets.

    Example: doorward reproduce smoothing-mnist17 --profile mnist-5k -o runs/smoothing
    """
    from doorward.errors import DoorwardError
    from doorward.papers import smoothing_mnist17 as paper

    if profile not in ("mnist", "mnist-5k"):
        raise DoorwardError(f"reproduce: profile {profile!r}; expected mnist or mnist-5k")
    chosen = paper.profile(profile, workers, device)  # type: ignore[arg-type]
    with common.bar() as progress:
        bar = progress.add_task("reproduce", total=sum(c.draws for c in chosen.curves), note="")

        def told(stage: str) -> None:
            progress.update(bar, description=stage)
            progress.advance(bar)

        table = paper.reproduce(chosen, output, results or output / "results", told=told)
    if as_json:
        common.print_json({"table": str(table), "text": table.read_text()})
    else:
        common.out.print(common.escape(table.read_text()), soft_wrap=True)
