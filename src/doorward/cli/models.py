"""The options by which every verb is given a model, the user's own or one of others; spelled alike in all."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from doorward.core.errors import DoorwardError

FORMS = "two-layer, small-cnn, resnet20, resnet18, deepid, FILE.py:factory (is run), timm:NAME, hf:FOLDER"

_MODEL = (
    "Folder written by 'doorward train', a folder of transformers, or a file of weights (safetensors, .pth, .h5) "
    "with --arch."
)
Model = Annotated[Path, typer.Argument(help=_MODEL)]
ModelOption = Annotated[Path | None, typer.Option("--model", metavar="MODEL", help=_MODEL)]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        help=f"For weights of others: {FORMS}. FILE.py must be your own; its factory is f(), f(classes) or "
        "f(shape, classes), shape being (channels, height, width).",
    ),
]
Mean = Annotated[str | None, typer.Option("--mean", metavar="A,B,...", help="Per channel, on the scale of --range.")]
Std = Annotated[str | None, typer.Option("--std", metavar="A,B,...", help="Per channel, on the scale of --range.")]
Range = Annotated[
    str | None,
    typer.Option("--range", metavar="LOW,HIGH", help="Black and white to the net: 0,1 or 0,255 or -1,1."),
]
Size = Annotated[
    int | None, typer.Option("--size", min=1, metavar="N", help="The net takes images of N x N; others are resized.")
]
FeatureLayer = Annotated[
    str | None,
    typer.Option(
        "--feature-layer", metavar="NAME", help="Layer whose input are the features; default the classification head."
    ),
]
Classes = Annotated[int | None, typer.Option("--classes", min=2, help="Number of classes, if the weights do not tell.")]
Split = Annotated[str | None, typer.Option("--split", help="train or test; default test where the source has both.")]


def of_model(
    model: Path,
    arch: str | None,
    mean: str | None,
    std: str | None,
    value_range: str | None,
    size: int | None = None,
    feature_layer: str | None = None,
) -> dict[str, Any]:
    """The fields of a request that say which model it is and how images go in."""
    return {
        "model": str(model),
        "arch": arch,
        "mean": parse_numbers("--mean", mean),
        "std": parse_numbers("--std", std),
        "value_range": parse_numbers("--range", value_range, count=2),
        "size": size,
        "feature_layer": feature_layer,
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
