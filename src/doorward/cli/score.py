"""``doorward score``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doorward.cli import common

if TYPE_CHECKING:
    from doorward.scoring.results import ScoreRecord


def score_command(
    run: Annotated[Path, typer.Argument(help="Folder written by 'doorward cleanse' or 'doorward repair'.")],
    truth: Annotated[Path | None, typer.Option(help="truth.parquet of the attack.")] = None,
    clean: Annotated[bool, typer.Option("--clean", help="The set is a clean control: every flag is false.")] = False,
    test: Annotated[
        str | None, typer.Option(help="Clean held-out images, to measure models on: the test split where there is one.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="[NAME=]FOLDER", help="A model to measure; may be repeated.")
    ] = None,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    as_json: common.AsJson = False,
) -> None:
    """Score a cleanse run against the truth: TPR, FPR, precision, AUROC; attack success of models.

    Of a repair run: true attack success and clean accuracy of every arm, on --test.
    Writes score.json into the run, for the report.

    Example: doorward score run/ --truth poisoned/truth.parquet --test mnist-5k --model before=model/
    """
    from doorward.core.errors import DoorwardError
    from doorward.data.sources import load_test_images
    from doorward.scoring.score import score

    if (truth is None) != clean:
        raise DoorwardError("score: expected either --truth FILE or --clean")
    models = []
    for given in model or []:
        name, equals, folder = given.partition("=")
        models.append((name, Path(folder)) if equals else (Path(given).name, Path(given)))
    images = None if test is None else load_test_images(test)
    found = score(run, truth, test=images, models=models, seed=seed, device=device)
    if as_json:
        common.print_json(found.model_dump(mode="json"))
        return
    told = found.attack.description if found.attack else "clean control"
    common.out.print(common.escape(common.printable(told)))
    show_score(found)


def show_score(score: ScoreRecord) -> None:
    """The tables of a score."""
    rows = []
    for name, found in score.methods.items():
        area = "-" if found.auroc is None else f"{found.auroc:.4f}"
        rates = [str(r.rate()) for r in (found.tpr, found.fpr, found.fpr_target, found.precision)]
        rows.append([name, *rates, area])
    if rows:
        columns = ["method", "TPR %", "FPR % (all clean)", "FPR % (target class)", "precision %", "AUROC"]
        common.print_table("Detection, with 95 % intervals", columns, rows)
    if score.models:
        rows = [[m.name, str(m.clean_accuracy.rate()), str(m.asr.rate())] for m in score.models]
        common.print_table("Models", ["model", "clean accuracy %", "attack success rate %"], rows)
