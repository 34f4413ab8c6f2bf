"""``doorward train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doorward.cli import common


def train_command(
    source: Annotated[str, typer.Argument(help="The training set: a named set, a folder, a file.")],
    output: common.Output,
    net: Annotated[str, typer.Option(help="two-layer, small-cnn, resnet20, resnet18 or deepid.")] = "small-cnn",
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    setting: common.Set = None,
    test: Annotated[
        str | None, typer.Option(help="Also measure accuracy on this set: its test split where there is one.")
    ] = None,
    without: Annotated[Path | None, typer.Option(help="Leave out the images that this cleanse run flagged ...")] = None,
    by: Annotated[str | None, typer.Option(help="... by this method.")] = None,
    attacker: Annotated[Path | None, typer.Option(help="Attack folder: stamp the batches as they go by ...")] = None,
    probability: Annotated[float, typer.Option(help="... each image with this probability.")] = 0.01,
    split: common.Split = "train",
    seed: common.Seed = 0,
    device: common.Device = "auto",
    overwrite: common.Overwrite = False,
    as_json: common.AsJson = False,
) -> None:
    """Train a net on an image set, or on what a cleanse run left of it.

    Settings (--set): batch, optimiser, lr, momentum, weight_decay, schedule, flip, shift, precision ...

    Example: doorward train poisoned/ --net small-cnn --epochs 10 --seed 1 -o model/
    """
    from doorward.core.methods import build_settings
    from doorward.models.train.job import TrainRequest, train_to_folder

    asked = {
        "source": source,
        "split": split,
        "net": net,
        "training": {**common.parse_settings(setting), "epochs": epochs},
        "test": test,
        "without": None if without is None else str(without),
        "by": by,
        "attacker": None if attacker is None else str(attacker),
        "probability": probability,
        "seed": seed,
        "device": device,
    }
    request = build_settings(TrainRequest, "train", asked)
    with common.display("train") as progress:
        made = train_to_folder(request, output, overwrite=overwrite, command=common.command_line(), progress=progress)
    if as_json:
        common.print_json(made.model_dump(mode="json"))
        return
    loss = "" if made.loss is None else f": loss {made.loss:.4f}"
    common.out.print(f"{net} trained on {made.images} images{loss}", end="")
    if made.test_accuracy:
        common.out.print(f", test accuracy {100 * made.test_accuracy.rate().value:.1f} %", end="")
    common.out.print(f"\nwritten to {common.escape(str(output))}")
