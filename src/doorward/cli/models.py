"""The options by which every verb is given a model, the user's own or one of others; spelled alike in all."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from doorward.cli import common
from doorward.cli.options import add_options
from doorward.core.errors import DoorwardError

FORMS = (
    "two-layer, small-cnn, pooled-cnn, conv4, resnet20, resnet18, deepid, FILE.py:factory (is run), timm:NAME, "
    "hf:FOLDER"
)

_MODEL = (
    "Folder written by 'doorward train', a folder of transformers, or a file of weights (safetensors, .pth, .h5) "
    "with --arch."
)
Model = Annotated[Path, typer.Argument(help=_MODEL)]
ModelOption = Annotated[Path, typer.Option("--model", metavar="MODEL", help=_MODEL, rich_help_panel=common.MODEL)]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        help=f"For weights of others: {FORMS}. FILE.py must be your own; its factory is f(), f(classes) or "
        "f(shape, classes), shape being (channels, height, width).",
        rich_help_panel=common.MODEL,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean", metavar="A,B,...", help="Per channel, on the scale of --range.", rich_help_panel=common.MODEL
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        "--std", metavar="A,B,...", help="Per channel, on the scale of --range.", rich_help_panel=common.MODEL
    ),
]
Range = Annotated[
    str | None,
    typer.Option(
        "--range",
        metavar="LOW,HIGH",
        help="Black and white to the net: 0,1 or 0,255 or -1,1.",
        rich_help_panel=common.MODEL,
    ),
]
FeatureLayer = Annotated[
    str | None,
    typer.Option(
        "--feature-layer",
        metavar="NAME",
        help="Layer whose input are the features; default the classification head.",
        rich_help_panel=common.MODEL,
    ),
]
Classes = Annotated[
    int | None,
    typer.Option(
        "--classes", min=2, help="Number of classes, if the weights do not tell.", rich_help_panel=common.MODEL
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="train or test; by default train for a set that is audited, else test where the source has both.",
        rich_help_panel=common.PICTURES,
    ),
]


_SPELLED: dict[str, Any] = {
    "arch": Arch, "mean": Mean, "std": Std, "value_range": Range, "size": common.Size, "resize": common.Resize,
    "skip_bad": common.SkipBad, "feature_layer": FeatureLayer, "classes": Classes, "split": Split,
    "device": common.Device,
}  # fmt: skip
Command = TypeVar("Command", bound=Callable[..., None])


def takes_model(command: Command) -> Command:
    """Give a command the options by which a model is opened and pictures are read for it, as ``**opening``."""
    return add_options(command, {name: (annotation, _DEFAULTS.get(name)) for name, annotation in _SPELLED.items()})


_DEFAULTS = {"resize": "crop", "skip_bad": False, "device": "auto"}


def as_request(model: Path | str, opening: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request that say which model it is, how images go in and how pictures are read."""
    return {
        **opening,
        "model": str(model),
        "mean": parse_numbers("--mean", opening["mean"]),
        "std": parse_numbers("--std", opening["std"]),
        "value_range": parse_numbers("--range", opening["value_range"], count=2),
    }


def parse_numbers(name: str, text: str | None, *, count: int = 0, whole: bool = False) -> tuple[float, ...] | None:
    """Finite numbers of an option, separated by commas; so many of them, or any number for a ``count`` of 0."""
    if text is None:
        return None
    try:
        numbers = tuple(int(part) if whole else float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or (count and len(numbers) != count) or not all(map(math.isfinite, numbers)):
        many, kind = f"{count} " if count else "", "whole numbers" if whole else "numbers"
        raise DoorwardError(f"{name} {text!r}; expected {many}{kind} separated by commas")
    return numbers
