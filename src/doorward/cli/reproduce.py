"""``doorward reproduce``: published tables and figures, each with one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from doorward.cli import common
from doorward.cli.reproduce_hackml import hackml_command
from doorward.cli.reproduce_mesa import mesa_command
from doorward.cli.reproduced import carry_out

app = typer.Typer(no_args_is_help=True)
app.command("mesa")(mesa_command)
app.command("hackml")(hackml_command)


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
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: as many as pay.")] = 0,
    device: common.Device = "auto",
    as_json: common.AsJson = False,
) -> None:
    """Figure 1 of Wang, Cao, Jia and Gong 2020, and how far past its 36 % one gets.

    Example: doorward reproduce smoothing-mnist17 --profile mnist-5k -o runs/smoothing
    """
    from doorward.core.errors import DoorwardError
    from doorward.papers import smoothing_mnist17 as paper

    if profile not in ("mnist", "mnist-5k"):
        raise DoorwardError(f"reproduce: profile {profile!r}; expected mnist or mnist-5k")
    chosen = paper.profile(profile, workers, device)  # type: ignore[arg-type]
    with common.display("reproduce") as progress:
        table = paper.reproduce(chosen, output, results or output / "results", progress=progress)
    if as_json:
        common.print_json({"table": str(table), "text": table.read_text()})
    else:
        common.out.print(common.escape(table.read_text()), soft_wrap=True)


@app.command("cluster-impurity")
def cluster_impurity(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the runs; finished ones are kept.")] = Path(
        "runs/cluster-impurity"
    ),
    results: Annotated[
        Path | None, typer.Option(help="Folder of tables, data, figures and page; default OUTPUT/results.")
    ] = None,
    profile: Annotated[str, typer.Option(help="cpu, gpu, faithful (one size, 200 epochs) or quick (digits).")] = "cpu",
    trainer: Annotated[str | None, typer.Option(help="fast, faithful or quick; default the profile's.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the trainer.")
    ] = None,
    size: Annotated[
        list[float] | None, typer.Option(help="Perturbation sizes instead of the profile's; may be repeated.")
    ] = None,
    seed: common.Seed = 0,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds per case instead of the profile's.")] = None,
    source_class: Annotated[str, typer.Option(help="Source class of the single-source attack.")] = "0",
    target: Annotated[str, typer.Option(help="Target class.")] = "7",
    single_count: Annotated[int | None, typer.Option(help="Poisoned images, single-source.")] = None,
    multiple_count: Annotated[int | None, typer.Option(help="Poisoned images, multiple-source.")] = None,
    channels: Annotated[str, typer.Option(help="Perturb all channels of the pixel, or one.")] = "all",
    beyond: Annotated[
        bool | None, typer.Option("--beyond/--no-beyond", help="Attacks the poster does not have.")
    ] = None,
    retrain: Annotated[
        bool | None, typer.Option("--retrain/--no-retrain", help="Retrain at every size, or at none.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CASE", help="Run this case alone; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would run and estimate its time.")] = False,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core on a CPU, one on a GPU.")] = 0,
    device: common.Device = "auto",
    as_json: common.AsJson = False,
) -> None:
    """Poster of Xiang, Miller and Kesidis 2019: one-pixel poison on CIFAR-10, three cleansers, retraining.

    Killed, it goes on at the first unfinished training when the same command is repeated.

    Example: doorward reproduce cluster-impurity --profile quick -o runs/quick
    """
    import tempfile

    from doorward.core.methods import build_settings
    from doorward.papers import cluster_impurity as paper
    from doorward.papers.accessory import draw_sunglasses

    asked: dict[str, Any] = {
        "trainer": trainer,
        "training": common.parse_settings(setting),
        "sizes": tuple(size or ()),
        "seed": seed,
        "seeds": seeds,
        "source_class": source_class,
        "target": target,
        "single_count": single_count,
        "multiple_count": multiple_count,
        "channels": channels,
        "beyond": beyond,
        "retrain": retrain,
        "device": device,
        "command": common.command_line(),
    }
    plan = paper.only(
        paper.make_plan(profile, build_settings(paper.Wishes, "reproduce", asked, options=True)), only or ()
    )
    with tempfile.TemporaryDirectory() as temporary:
        paper.check(plan, str(draw_sunglasses(Path(temporary) / "sunglasses.png")))
    if dry_run:
        _show_plan(plan, output, as_json)
        return
    carry_out(paper, plan, output, results, jobs=jobs, as_json=as_json)


def _show_plan(plan: Any, output: Path, as_json: bool) -> None:
    from doorward.papers.cluster_impurity.estimate import dry_run

    estimates, speed = dry_run(plan, output)
    total = sum(e.seconds for e in estimates)
    if as_json:
        common.print_json(
            {
                "stages": [vars(e) for e in estimates],
                "seconds": total,
                "training_images_per_second": speed.training,
                "forward_images_per_second": speed.forward,
            }
        )
        return
    rows = [[e.stage, e.state, f"{e.seconds / 60:.1f}" if e.seconds else "–"] for e in estimates]
    common.print_table(f"{len(estimates)} stages", ["stage", "state", "minutes"], rows)
    common.out.print(
        f"about {total / 3600:.1f} hours at {speed.training:,.0f} images/s of training and {speed.forward:,.0f} of a "
        "forward pass, measured now; the methods' own arithmetic is not counted",
        soft_wrap=True,
    )
