"""``doorward train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doorward.cli import common, models

if TYPE_CHECKING:
    from doorward.models.train.job import TrainRequest
    from doorward.models.train.results import TrainRecord

_Net = Annotated[
    str | None,
    typer.Option(
        help=f"The architecture: {models.FORMS}. Default small-cnn, or that of --weights.",
        rich_help_panel=common.MODEL,
    ),
]
_Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="MODEL",
        help="Train on from these weights; the head is replaced where the classes are others.",
        rich_help_panel=common.MODEL,
    ),
]
_Augment = Annotated[
    str,
    typer.Option(
        help="none, or imagenet: random parts of the images, half of them mirrored.",
        rich_help_panel=common.PICTURES,
    ),
]
_Test = Annotated[
    str | None,
    typer.Option(
        help="Also measure accuracy on this set: its test split where there is one.",
        rich_help_panel=common.PICTURES,
    ),
]
_Without = Annotated[
    Path | None,
    typer.Option(help="Leave out what this run of audit or cleanse flagged ...", rich_help_panel=common.PICTURES),
]
_By = Annotated[str | None, typer.Option(help="... by this method of a cleanse run.", rich_help_panel=common.PICTURES)]


def train_command(
    source: Annotated[str, typer.Argument(help="The training set: a named set, a folder, a file.")],
    output: common.Output,
    net: _Net = None,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    setting: common.Set = None,
    weights: _Weights = None,
    size: common.Size = None,
    resize: common.Resize = "crop",
    skip_bad: common.SkipBad = False,
    mean: models.Mean = None,
    std: models.Std = None,
    value_range: models.Range = None,
    augment: _Augment = "none",
    test: _Test = None,
    without: _Without = None,
    by: _By = None,
    attacker: Annotated[Path | None, typer.Option(help="Attack folder: stamp the batches as they go by ...")] = None,
    probability: Annotated[float, typer.Option(help="... each image with this probability.")] = 0.01,
    split: common.Split = "train",
    seed: common.Seed = 0,
    device: common.Device = "auto",
    dry_run: common.DryRun = False,
    overwrite: common.Overwrite = False,
    as_json: common.AsJson = False,
) -> None:
    """Train a net on an image set, or on what a cleanse run left of it.

    Settings (--set) are listed by 'doorward methods train'. Without any
    --set: SGD at 0.1 for resnet20 and resnet18; AdamW for others, at 0.002 for built-in nets, 0.001 for your own,
    0.0003 from given weights.

    FILE.py:factory is run: it must be your own file. The factory is f(), f(classes) or f(shape, classes), with shape
    (channels, height, width).

    Several GPUs or processes: torchrun --standalone --nproc-per-node 2 -m doorward train ...

    Example: doorward train poisoned/ --net small-cnn --epochs 10 --seed 1 -o model/
    """
    from doorward.models.train.job import plan_to_train, train_to_folder

    plain: dict[str, Any] = {
        "source": source,
        "split": split,
        "size": size,
        "resize": resize,
        "skip_bad": skip_bad,
        "augment": augment,
        "test": test,
        "by": by,
    }
    plain |= {"probability": probability, "seed": seed, "device": device}
    paths = {"weights": weights, "without": without, "attacker": attacker}
    numbers = {"--mean": mean, "--std": std, "--range": value_range}
    request = _request(net, epochs, setting, plain, paths, numbers)
    if dry_run:
        common.show_plan(plan_to_train(request), as_json)
    with common.display("train") as progress:
        made = train_to_folder(
            request, output, overwrite=overwrite, command=common.command_line(), progress=progress, tell=_tell
        )
    if made is None:  # one of several processes, which is not the one that writes
        return
    if as_json:
        common.print_json(made.model_dump(mode="json"))
    else:
        _show(made, net or ("small-cnn" if weights is None else str(weights)), output)


def _request(
    net: str | None,
    epochs: int,
    setting: list[str] | None,
    plain: dict[str, Any],
    paths: dict[str, Path | None],
    numbers: dict[str, str | None],
) -> TrainRequest:
    from doorward.core.methods import build_settings
    from doorward.models.train.job import TrainRequest
    from doorward.models.train.settings import default_recipe

    given_weights = paths["weights"] is not None
    recipe = common.parse_settings(setting) or default_recipe(net or "small-cnn", given_weights=given_weights)
    asked = {
        **plain,
        **{name: None if path is None else str(path) for name, path in paths.items()},
        "training": {**recipe, "epochs": epochs},
        "mean": models.parse_numbers("--mean", numbers["--mean"]),
        "std": models.parse_numbers("--std", numbers["--std"]),
        "value_range": models.parse_numbers("--range", numbers["--range"], count=2),
    }
    return build_settings(TrainRequest, "train", asked if net is None else {**asked, "net": net}, options=True)


def _tell(text: str) -> None:
    common.err.print(f"train: {common.escape(common.printable(text))}", soft_wrap=True)


def _show(made: TrainRecord, net: str, output: Path) -> None:
    loss = "" if made.loss is None else f": loss {made.loss:.4f}"
    told = f"{common.escape(net)} trained on {made.images} images{loss}"
    if made.test_accuracy:
        told += f", test accuracy {100 * made.test_accuracy.rate().value:.1f} %"
    common.out.print(told, soft_wrap=True)
    own = f"; open it with --arch {net}" if ".py:" in net else ""
    common.out.print(common.escape(f"written to {output}{own}"), soft_wrap=True)
